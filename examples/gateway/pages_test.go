package main

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// A page of older messages never changes, unless it ends before a message that does not exist yet:
//
//  1. A user requests the messages before a message id that is too high. The answer has the latest messages.
//  2. The user posts a message.
//  3. The user requests the same page again. If the page is cached, the new message is missing.
func TestAMessageShowsInEveryPage(t *testing.T) {
	run, key := start(t), demoKey(1)
	path := "/api/chat/sessions/3?before=99999999"
	old := decode[session](run, path, key)
	r := run.ask(http.MethodPost, "/api/chat/sessions/3/messages", key, `{"content":"the newest one"}`)
	require.Equal(t, http.StatusCreated, r.status, r.body)
	now := decode[session](run, path, key)
	require.Equal(t, "the newest one", now.Messages[len(now.Messages)-1].Content, "%d and %d messages", len(old.Messages), len(now.Messages))
}

// A user cannot fill the cache with invented message ids: their pages are not cached.
func TestMadeUpPagesAreNotKept(t *testing.T) {
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
