package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What INFO says of a Redis 7.0.15, and of a Valkey 8.1.1.
func TestTheVersionOfAServer(t *testing.T) {
	t.Parallel()
	require.Equal(t, "7.0.15, standalone", versionOf(fields("redis_version:7.0.15\r\nredis_mode:standalone\r\n")))
	require.Equal(t, "Valkey 8.1.1, cluster", versionOf(fields("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\nserver_mode:cluster\r\n")))
}
