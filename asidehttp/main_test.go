package asidehttp_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing may run on, but for a timer of the Redis client that ends by itself within a second.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}
