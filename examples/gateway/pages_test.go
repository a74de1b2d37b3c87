package main

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// A page of older messages never changes, unless it is asked for before a message that does not exist yet.
//
//  1. A user asks for the messages before one with a high number: these are the latest.
//  2. He posts another one.
//  3. He asks for the same page, and his message is not in it.
func TestAMessageShowsInEveryPage(t *testing.T) {
	run, key := start(t), demoKey(1)
	path := "/api/chat/sessions/3?before=99999999"
	old := decode[session](run, path, key)
	r := run.ask(http.MethodPost, "/api/chat/sessions/3/messages", key, `{"content":"the newest one"}`)
	require.Equal(t, http.StatusCreated, r.status, r.body)
	now := decode[session](run, path, key)
	require.Equal(t, "the newest one", now.Messages[len(now.Messages)-1].Content, "%d and %d messages", len(old.Messages), len(now.Messages))
}

// What one user asks for takes no more room than what there is: made-up numbers of messages make no keys.
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
