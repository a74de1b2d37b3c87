package faults_test

import (
	"testing"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// storedInRedis stores a value until Redis has it: a busy machine may take longer to store it than a call waits.
func storedInRedis[T any](t *testing.T, c *aside.Cache, server *redistest.Server, key aside.Key, value T) {
	t.Helper()
	asidetest.Eventually(t, "redis has "+key.String(), func() bool {
		asidetest.Stored(t, c, key, value)
		return server.MustDo(t, "EXISTS", key.String()).(int64) == 1
	})
}
