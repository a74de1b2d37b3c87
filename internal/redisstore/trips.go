package redisstore

import "errors"

// A TripCause is why callers are not sent to a server any more.
type TripCause uint8

// The causes of trips.
const (
	TripBroken  TripCause = iota // the connection has broken
	TripTimeout                  // the server did not answer in time, a few times in a row or until the connection was given up
	TripSlow                     // the server answered, later than callers can wait
	TripSilent                   // the server did not push a change
	TripUnready                  // the server says that it cannot serve now: it loads its data, or has lost its primary
	TripRefused                  // the server refuses the user, or all writes

	TripCauses = iota // how many there are
)

// String returns the name.
func (c TripCause) String() string { return tripCauseNames[c] }

var tripCauseNames = [TripCauses]string{"broken", "timeout", "slow", "silent", "unready", "refused"}

func tripCauseOf(err error) TripCause {
	switch class := classOf(err); {
	case errors.Is(err, errSilent):
		return TripSilent
	case errors.Is(err, ErrSlow):
		return TripSlow
	case class == refused:
		return TripRefused
	case class == down:
		return TripUnready
	case IsTimeout(err): // also as the cause of a broken connection: a server that hangs breaks it after a while
		return TripTimeout
	}
	return TripBroken
}

// tripCounts counts, by cause, how often callers were not sent to a server any more. It is about one address: a link that goes to another
// address, since Sentinels have named another primary, counts anew, as a process does that begins.
type tripCounts struct {
	addr string
	by   [TripCauses]uint64
}

func (t *tripCounts) count(addr string, cause error) {
	if addr != t.addr {
		*t = tripCounts{addr: addr}
	}
	t.by[tripCauseOf(cause)]++
}

// of are the counts of an address.
func (t *tripCounts) of(addr string) [TripCauses]uint64 {
	if addr != t.addr {
		return [TripCauses]uint64{}
	}
	return t.by
}
