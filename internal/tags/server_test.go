package tags

import (
	"context"
	"errors"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	red   = keyspace.NamedPrefix + "red"
	green = keyspace.NamedPrefix + "green"
	items = keyspace.CategoryPrefix + "items"
)

var errAway = errors.New("the server is away")

// A server is a pretended one: it has the generations of tags, and notifies of changes of what is read.
type server struct {
	generations map[string]uint64
	connection  *near.Validity
	ups         uint64
	up          bool
	err         error             // of every command
	asked       []redisstore.Tag  // by ensure, in their order
	looked      []string          // by look, likewise
	bumped      []redisstore.Tag  // by bump, likewise
	touched     chan []string     // by touch, where it is not nil
	meanwhile   func(name string) // called before the generation of a name is answered
}

func newServer() *server {
	return &server{generations: make(map[string]uint64), connection: new(near.Validity), ups: 1, up: true}
}

func (s *server) ensure(_ context.Context, tags ...redisstore.Tag) (list []redisstore.Generation) {
	for _, tag := range tags {
		s.asked = append(s.asked, tag)
		if s.meanwhile != nil {
			s.meanwhile(tag.Key)
		}
		if s.generations[tag.Key] == 0 && s.err == nil {
			s.generations[tag.Key] = 100
		}
		list = append(list, redisstore.Generation{Value: s.generations[tag.Key], Err: s.err})
	}
	return list
}

func (s *server) look(_ context.Context, looks ...redisstore.Get) (reads []redisstore.Read) {
	for _, l := range looks {
		s.looked = append(s.looked, l.Key)
		if s.meanwhile != nil {
			s.meanwhile(l.Key)
		}
		r := redisstore.Read{Err: s.err}
		if s.err == nil {
			r.Validity = s.connection
			l.Fence.Arm()
			if g := s.generations[l.Key]; g != 0 {
				r.Value = strconv.AppendUint(nil, g, 10)
			}
		}
		reads = append(reads, r)
	}
	return reads
}

func (s *server) bump(_ context.Context, tags ...redisstore.Tag) (list []redisstore.Generation) {
	s.bumped = append(s.bumped, tags...)
	return make([]redisstore.Generation, len(tags))
}

func (s *server) connect() *redis {
	return &redis{
		contact: func(string) (uint64, bool) { return s.ups, s.up },
		look:    s.look, ensure: s.ensure, bump: s.bump,
		budget: func(ctx context.Context, _ int64, _ int) (context.Context, context.CancelFunc) { return ctx, func() {} },
		up:     func() bool { return s.up },
		touch:  func(_ context.Context, names ...string) { s.touched <- names },
	}
}

// newLocal is a registry in memory mode.
func newLocal(t *testing.T) *Registry {
	t.Helper()
	clock := near.NewClock()
	memory := near.New(near.Options{MaxEntries: 1000, MaxBytes: 1 << 20}, clock)
	t.Cleanup(func() {
		memory.Close()
		clock.Stop()
	})
	return New(memory, clock)
}

// newConnected is one with a pretended server, where nothing is in quarantine but what is in held.
func newConnected(t *testing.T) (r *Registry, s *server, held map[string]bool) {
	t.Helper()
	r, s, held = newLocal(t), newServer(), make(map[string]bool)
	r.redis, r.quarantined = s.connect(), func(name string) bool { return held[name] }
	return r, s, held
}

// take is a snapshot of tags that ends with its test.
func take(t *testing.T, r *Registry, names ...string) *Snapshot {
	t.Helper()
	s := r.Snapshot()
	t.Cleanup(s.End)
	s.Add(names...)
	return s
}

// read reads in Redis what the snapshot does not know.
func read(s *Snapshot) {
	n := s.Unread()
	looks := s.Looks(make([]redisstore.Get, 0, n))
	s.Learn(s.registry.redis.look(context.Background(), looks...))
}
