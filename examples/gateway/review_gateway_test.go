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

// A page of older messages never changes, unless it is asked for before a message that does not exist yet.
//
//  1. A user asks for the messages before one with a high number: these are the latest.
//  2. He posts another one.
//  3. He asks for the same page, and his message is not in it.
func TestReviewAMessageShowsInEveryPage(t *testing.T) {
	run, key := start(t), demoKey(1)
	path := "/api/chat/sessions/3?before=99999999"
	old := decode[session](run, path, key)
	r := run.ask(http.MethodPost, "/api/chat/sessions/3/messages", key, `{"content":"the newest one"}`)
	require.Equal(t, http.StatusCreated, r.status, r.body)
	now := decode[session](run, path, key)
	require.Equal(t, "the newest one", now.Messages[len(now.Messages)-1].Content, "%d and %d messages", len(old.Messages), len(now.Messages))
}

// What one user asks for takes no more room than what there is: made-up numbers of messages make no keys.
func TestReviewMadeUpPagesAreNotKept(t *testing.T) {
	run, key := start(t), demoKey(1)
	for i := range 50 {
		decode[session](run, fmt.Sprintf("/api/chat/sessions/3?before=%d", 1_000_000+i), key)
	}
	hits := 0
	for i := range 50 {
		if run.get(fmt.Sprintf("/api/chat/sessions/3?before=%d", 1_000_000+i), key).hit() {
			hits++
		}
	}
	require.Zero(t, hits, "each of them is kept, with up to %d messages of 16 kB", messagesPage)
}

// A request without a key, or to nowhere, is answered without waiting for its body.
func TestReviewARefusalDoesNotWaitForItsBody(t *testing.T) {
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

// Too many loads at once are no failure of the server.
func TestReviewOverloadSaysSo(t *testing.T) {
	require.Equal(t, http.StatusServiceUnavailable, problemOf(fmt.Errorf("search: %w", &aside.Error{Code: aside.CodeOverloaded})).Status)
}
