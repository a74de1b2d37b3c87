package asidetest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// Canary is what no text of the library may hold.
const Canary = "cAnArY7f3a9d0e1b"

// CanaryIn looks for it in every form that a printer could give it.
func CanaryIn(text string) (form string, found bool) {
	for form, sign := range canaryForms {
		if strings.Contains(text, sign) {
			return form, true
		}
	}
	return "", false
}

var canaryForms = func() map[string]string {
	numbers := strings.Trim(fmt.Sprint([]byte(Canary)), "[]")
	return map[string]string{
		"text": Canary, "base64": base64.RawStdEncoding.EncodeToString([]byte(Canary)), "hex": hex.EncodeToString([]byte(Canary)),
		"HEX": strings.ToUpper(hex.EncodeToString([]byte(Canary))), "numbers": numbers, "Go": strings.Trim(fmt.Sprintf("%#v", []byte(Canary)), "[]byte{}"),
		"numbers in JSON": strings.ReplaceAll(numbers, " ", ","),
	}
}()

func RequireNoCanary(t *testing.T, text, where string) {
	t.Helper()
	form, found := CanaryIn(text)
	require.False(t, found, "%s holds the canary as %s: %s", where, form, text)
}

func Secretive(addr string) aside.Options {
	return aside.Options{
		Redis: rueidis.ClientOption{
			InitAddress: []string{addr}, ForceSingleClient: true, Username: Canary, Password: Canary, SelectDB: 3,
			Sentinel: rueidis.SentinelOption{Username: Canary, Password: Canary},
		},
		Secret: aside.NewSecret(Canary),
	}
}
