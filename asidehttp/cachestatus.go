package asidehttp

import (
	"net/http"
	"strconv"
	"time"

	"github.com/gatewayz/aside"
)

// SetCacheStatus adds to the Cache-Status header of a response (RFC 9211) how the cache has answered a call. It is for handlers that encode a value
// themselves: [Serve] sets the header too. The name identifies the cache. Default: aside.
//
//	aside; hit; ttl=412; detail=memory              a fresh value in memory; in Redis: detail=redis
//	aside; hit; ttl=-9; detail=memory               a value past its TTL; detail=backoff and overloaded: why no load was made
//	aside; hit; ttl=0; detail=stale                 a value that Redis cannot confirm
//	aside; fwd=stale; ttl=-9; detail=load-failed    a value past its TTL, after this call has waited for a load that failed; or detail=slow-load
//	aside; fwd=miss; stored; collapsed              by a load; stored: the value is cached now; collapsed: another call had started the load
//	aside; fwd=miss; detail=unavailable             by a load, because Redis was unavailable or failed
//	aside                                           the call failed: res is the zero Result
func SetCacheStatus[T any](h http.Header, res aside.Result[T], name string) {
	h.Add("Cache-Status", cacheStatus(statusOf(res), name, ""))
}

// callStatus is what Cache-Status says of a Result.
type callStatus struct {
	status     aside.Status
	tier       aside.Tier
	reason     string
	ttl, stale time.Duration
	shared     bool
}

func statusOf[T any](res aside.Result[T]) callStatus {
	return callStatus{res.Status, res.Tier, res.Reason, res.TTL, res.Stale, res.Shared}
}

// cacheStatus returns a member of the list Cache-Status. The key is left out if it is empty.
func cacheStatus(s callStatus, name, key string) string {
	b := make([]byte, 0, 64)
	if name == "" {
		name = "aside"
	}
	if isItemToken(name) {
		b = append(b, name...)
	} else {
		b = appendString(b, name)
	}
	switch s.status {
	case aside.StatusHit:
		b = append(b, "; hit; ttl="...)
		b = strconv.AppendInt(b, int64(s.ttl/time.Second), 10)
		b = append(append(b, "; detail="...), s.tier...)
	case aside.StatusStale:
		b = s.appendStale(b)
	case aside.StatusMiss, aside.StatusFallback:
		b = append(b, "; fwd=miss"...)
		if s.ttl > 0 {
			b = append(b, "; stored"...)
		}
		if s.shared {
			b = append(b, "; collapsed"...)
		}
		if s.status == aside.StatusFallback {
			b = append(b, "; detail=unavailable"...)
		}
	}
	if key != "" {
		b = appendString(append(b, "; key="...), key)
	}
	return string(b)
}

// appendStale appends the parameters of an old value. "hit" says that the request was not forwarded: it was, if the call has waited for a load.
func (s callStatus) appendStale(b []byte) []byte {
	if s.stale <= 0 {
		return append(b, "; hit; ttl=0; detail=stale"...)
	}
	how, detail := "; hit", string(s.tier)
	switch s.reason {
	case aside.ReasonLoadFailed:
		how, detail = "; fwd=stale", "load-failed"
	case aside.ReasonSlowLoad:
		how, detail = "; fwd=stale", "slow-load"
	case aside.ReasonBackoff:
		detail = "backoff"
	case aside.ReasonOverloaded:
		detail = "overloaded"
	}
	b = append(append(b, how...), "; ttl=-"...)
	b = strconv.AppendInt(b, int64((s.stale+time.Second-1)/time.Second), 10) // never 0, which is for a value within its TTL
	return append(append(b, "; detail="...), detail...)
}

// isItemToken reports whether a text is a Token of RFC 8941.
func isItemToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isTokenByte(c) && c != ':' && c != '/' {
			return false
		}
	}
	return s[0] == '*' || 'A' <= s[0] && s[0] <= 'Z' || 'a' <= s[0] && s[0] <= 'z'
}

// appendString appends a String of RFC 8941. It has printable ASCII only: other bytes become question marks.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c > '~':
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
