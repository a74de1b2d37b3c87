package asideotel

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"github.com/gatewayz/aside"
)

// appendRedis appends the attributes of the semantic conventions for a round trip to Redis, which its spans and its durations share.
func appendRedis(all []attribute.KeyValue, op aside.Op) []attribute.KeyValue {
	all = append(all, attribute.String("db.system.name", "redis"), attribute.String("db.operation.name", op.Command))
	host, port, err := net.SplitHostPort(op.Node)
	if err != nil { // the path of a socket
		return append(all, attribute.String("server.address", op.Node))
	}
	all = append(all, attribute.String("server.address", host))
	if n, err := strconv.Atoi(port); err == nil {
		all = append(all, attribute.Int("server.port", n))
	}
	return all
}

// redisErrorType is the code with which a server's error begins, such as NOPERM, or a word for a server that has not answered.
func redisErrorType(err error) string {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "timeout"
	}
	code, _, more := strings.Cut(err.Error(), " ")
	if !more || code == "" || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return "connection" // it has broken, or was closed
	}
	return code
}
