package asidetest

import (
	"io"
	"net"
	"strings"
	"testing"
)

// AnsweringWith is a server that gives the same answer to each command.
func AnsweringWith(t *testing.T, answer string) (addr string) {
	return Answering(t, func(conn net.Conn) {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			for range strings.Count(string(b[:n]), "*") {
				_, _ = io.WriteString(conn, answer+"\r\n")
			}
		}
	})
}
