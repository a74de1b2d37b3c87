package aside

import (
	"context"
	"time"

	"github.com/gatewayz/aside/internal/outside"
)

// admit returns on whose behalf names are to be invalidated, and sets room aside until end is called.
func (c *Cache) admit(ctx context.Context, names ...string) (caller string, end func(), err error) {
	if caller = outside.Caller(ctx); caller == "" {
		return "", func() {}, nil
	}
	var rooms []func(caller string, names []string) (end func(), ok bool)
	if c.opts.OnInvalidated != nil {
		rooms = append(rooms, c.told.reserve)
	}
	if c.store != nil {
		rooms = append(rooms, c.sweeper.Reserve, c.journal.Reserve)
	}
	var reserved []func()
	end = func() {
		for _, end := range reserved {
			end()
		}
	}
	for _, reserve := range rooms {
		one, ok := reserve(caller, names)
		if !ok {
			end()
			const wait = 2 * time.Second
			return "", nil, &Error{
				Code: CodeOverloaded, RetryAfter: wait,
				Message: "there is no room for this, while earlier invalidations are being carried out: nothing was invalidated; send it again a little later, or less of it at once",
			}
		}
		reserved = append(reserved, one)
	}
	return caller, end, nil
}
