package asidehttp_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func twoKeys() asidehttp.Options {
	return asidehttp.Options{Logger: slog.New(slog.DiscardHandler), Keys: []asidehttp.Key{
		{Name: "flood", Secret: aside.NewSecret(keyChange), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
		{Name: "deploy", Secret: aside.NewSecret(keyOld), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
	}}
}

// Hazard 141: Redis is healthy. One key invalidates many tags that exist; another one sends one order while they are swept.
func TestManyTagsOfOneKeyDoNotRefuseAnother(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c := connectedTo(t, proxy.Addr(), nil)
	for i := range 100 { // what sweeps have to go through
		args := []string{"MSET"}
		for j := range 1000 {
			args = append(args, fmt.Sprintf("other:%d:%d", i, j), "foreign")
		}
		server.MustDo(t, args...)
	}
	for i := range 360 {
		var tags []string
		for j := range 50 {
			tags = append(tags, fmt.Sprint("supplier ", 50*i+j))
		}
		asidetest.Stored(t, c, aside.TTL.ModelsAll.Key("m", i), "v", aside.WithTags(tags...))
	}
	h := asidehttp.AdminHandler(c, twoKeys())
	proxy.SetDelay(2 * time.Millisecond)
	refused, own := 0, 0
	began := time.Now()
	for i := range 18 {
		var tags []string
		for j := range 1000 {
			tags = append(tags, fmt.Sprint("supplier ", 1000*i+j))
		}
		if ask(h, "POST", "/", bodyOf(t, "tags", tags), "Bearer "+keyChange).Code == 200 {
			own++
		}
		time.Sleep(100 * time.Millisecond) // at the rate that the key has
		if ask(h, "POST", "/", `{"category":"user","wait":0}`, "Bearer "+keyOld).Code != 200 {
			refused++
		}
	}
	t.Log(time.Since(began), own, "of 18 done,", refused, "of another's refused")
	require.Zero(t, refused)
}
