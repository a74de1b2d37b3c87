package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/rueidis"
)

// onConnect checks a server before it is used. It loads the scripts, so that the first callers need no further round trip, and
// tries whether the server runs them. A server that is out of memory passes: it still has values to read, and takes removals.
func (s *Store) onConnect(ctx context.Context, l *link, c rueidis.Client) error {
	err := l.readClock(ctx, c)
	for more := 4; more > 0 && errors.Is(err, ErrSlow); more-- {
		err = l.readClock(ctx, c) // on a busy machine this process may have been the slow one
	}
	if err != nil {
		return err
	}
	for _, node := range c.Nodes() {
		loads := make(rueidis.Commands, len(scripts))
		for i, script := range scripts {
			loads[i] = node.B().ScriptLoad().Script(script.text).Build()
		}
		for _, r := range node.DoMulti(ctx, loads...) {
			// Some providers forbid SCRIPT. Each script is then sent with its first run.
			if err := r.Error(); classOf(err) != answer && code(err) != "NOPERM" {
				return err
			}
		}
	}
	return s.checkCommands(ctx, l, c)
}

// readClock reads the server's time, which freshness is measured by.
func (l *link) readClock(ctx context.Context, c rueidis.Client) error {
	sent := time.Now()
	now, err := parseTime(c.Do(ctx, c.B().Time().Build()))
	if err != nil {
		return err
	}
	l.clock.note(sent, now)
	if time.Since(sent) > l.grace.now() {
		return ErrSlow
	}
	return nil
}

// parseTime returns the time in µs in a reply to TIME.
func parseTime(r rueidis.RedisResult) (int64, error) {
	parts, err := r.ToArray()
	if err == nil && len(parts) != 2 {
		err = errors.New("malformed reply to TIME")
	}
	if err != nil {
		return 0, err
	}
	seconds, err := parts[0].AsInt64()
	if err != nil {
		return 0, err
	}
	micros, err := parts[1].AsInt64()
	return seconds*1_000_000 + micros, err
}
