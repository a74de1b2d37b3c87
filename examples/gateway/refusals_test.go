package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// A request without an API key, or for an unknown path, is answered before its body is read.
func TestARefusalDoesNotWaitForItsBody(t *testing.T) {
	run := start(t)
	for _, line := range []string{"POST /api/chat/sessions/1/messages", "POST /nowhere", "POST /api/models", "GET /api/chat/stats"} {
		t.Run(line, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(run.base, "http://"))
			require.NoError(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, line+" HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(3*time.Second)))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err, "no answer within three seconds")
			require.Contains(t, []int{401, 404, 405}, resp.StatusCode)
			resp.Body.Close()
		})
	}
}

// Too many concurrent loads are answered with 503, and not with 500.
func TestOverloadSaysSo(t *testing.T) {
	require.Equal(t, http.StatusServiceUnavailable, problemOf(fmt.Errorf("search: %w", &aside.Error{Code: aside.CodeOverloaded})).Status)
}
