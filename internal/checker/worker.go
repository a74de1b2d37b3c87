package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside"
)

// workerEnv holds a workerConfig.
const workerEnv = "ASIDE_CHECKER_WORKER"

type workerConfig struct {
	Socket      string   // where the source and the judge are
	Proc        uint16   // the number of this process
	Role        int      // of its kind there is one at a time
	Seed        uint64   //
	Redis       []string // addresses
	Mode        mode
	Detours     map[string]string // what is dialed in place of an address
	User        string            // and its password; none where it is ""
	Connections int               // to each server
	Apart       bool              // each key is changed by one process only, by itself and seldom; and half of them are read only through doors that join loads
	DegradedTTL time.Duration     //
	Windows     *windows          // of all policies; nil for none
	Placed      bool              // see movePlaces
	Readers     int               // goroutines
	Writers     int               //
	Connected   bool              // whether it begins when Redis is in use, and not before
	Broken      string            // a way in which this worker is broken, for tests of the check itself
}

// Ways to be broken.
const (
	brokenForgets = "forgets" // some invalidations are not carried out
	brokenHoards  = "hoards"  // some reads are answered from a cache that nobody invalidates
	brokenWeak    = "weak"    // Strong is left out
	brokenKeeps   = "keeps"   // some loads, of schedules with windows, give what this process has loaded before, as if that was never invalidated
)

// A worker is one process with a cache.
type worker struct {
	workerConfig
	cache   *aside.Cache
	source  *remote
	loaders [len(groups)]*aside.Loader[string, value]
	session *session

	left         atomic.Uint64 // calls that ended at their deadline
	hasty        atomic.Uint64 // calls with a short one
	failed       atomic.Uint64 // calls that failed as the source did
	batches, ids atomic.Uint64 // large ones
	sets         atomic.Uint64
	changing     [keyCount]sync.RWMutex  // held to set a key, so that nobody changes it, and shared by who changes it
	kept         [keyCount]atomic.Uint32 // what a broken worker has loaded first, plus one
	passing      chan *tape              // of those who come by: see visits
	looking      atomic.Bool             // nothing changes just now, and all keys are to be read

	stop     chan struct{}
	ended    chan struct{} // when everything was read for the last time
	watching sync.WaitGroup
	busy     sync.WaitGroup // readers and writers
	receipts sync.WaitGroup // those who wait for one
	seq      atomic.Uint32  // of invalidations
}

// workerProcess is the whole of a worker's process: it is told "start", "stop", "final" and "exit", in this order, and between
// the first two "look" and "leave", again and again.
func workerProcess() {
	w := &worker{stop: make(chan struct{}), ended: make(chan struct{})}
	if err := json.Unmarshal([]byte(os.Getenv(workerEnv)), &w.workerConfig); err != nil {
		panic(err)
	}
	conn, err := dial(w.Socket, forSession, w.Proc)
	if err != nil {
		panic(err)
	}
	w.session = &session{conn: conn}
	w.source = newRemote(w.Socket, w.Proc)
	redis := rueidis.ClientOption{InitAddress: w.Redis, ForceSingleClient: w.Mode == oneServer, Username: w.User, Password: w.User}
	if w.Mode == bySentinels {
		redis.Sentinel.MasterSet = watched
	}
	for n := w.Connections; n > 1; n /= 2 {
		redis.PipelineMultiplex++
	}
	if len(w.Detours) > 0 {
		redis.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", cmp.Or(w.Detours[addr], addr))
		}
	}
	if w.Placed {
		movePlaces()
	}
	if w.Windows != nil {
		for i := range groups {
			w.Windows.open(&groups[i].policy)
		}
	}
	w.cache, err = aside.New(aside.Options{
		Redis:       redis,
		Policies:    policies(),
		DegradedTTL: w.DegradedTTL,
		OpTimeout:   250 * time.Millisecond, // all workers share a few processors: one that waits for its turn is not a fault
		LoadTimeout: 25 * time.Second,       // no load takes nearly that long
		LeaseTTL:    time.Second,            // of a process that is killed or stopped, others wait for no longer
		ChunkFrom:   chunkFrom,
		Logger:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	for i := range groups {
		g := &groups[i]
		if i%2 == 0 {
			w.loaders[i] = aside.NewLoader(w.cache, g.policy, func(ctx context.Context, id string) (value, error) {
				return w.load(ctx, keysByName[g.policy.Category+":"+id])
			})
			continue
		}
		w.loaders[i] = aside.NewBatchLoader(w.cache, g.policy, func(ctx context.Context, ids []string) (map[string]value, error) {
			return w.loadMany(ctx, g, ids)
		})
	}
	if w.Connected {
		w.awaitRedis()
	}
	w.watching.Go(w.watchHealth)
	w.session.say("ready")
	for in := bufio.NewScanner(conn); in.Scan(); {
		words := strings.Fields(in.Text())
		switch words[0] {
		case "start":
			w.start()
		case "look":
			w.looking.Store(true)
		case "leave":
			w.looking.Store(false)
		case "stop":
			w.drain()
			w.session.say("stopped")
		case "final":
			var exempt keySet
			if _, err := fmt.Sscan(words[1], &exempt); err != nil {
				panic(err)
			}
			w.final(exempt)
			w.session.say("final")
		case "exit":
			close(w.ended)
			w.watching.Wait()
			w.metrics()
			w.cache.Close()
			return
		}
	}
	os.Exit(3) // the judge has gone
}

func (w *worker) start() {
	random := rand.New(rand.NewPCG(w.Seed, uint64(w.Proc)))
	for range w.Readers {
		t := w.newTape(random)
		w.busy.Go(func() { w.readAlong(t) })
	}
	w.visits(random)
	w.largeBatches(random)
	for range w.Writers {
		t := w.newTape(random)
		w.busy.Go(func() { w.writeAlong(t) })
	}
	w.busy.Go(func() { // a process that is killed has told how it was doing
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
				w.metrics()
			}
		}
	})
}

// patience is how long a worker waits for what must come once all faults have ended.
const patience = 20 * time.Second

// drain ends the readers and writers, and waits until Redis is in use and has confirmed everything.
func (w *worker) drain() {
	close(w.stop)
	w.busy.Wait()
	w.receipts.Wait()
	w.awaitRedis()
}

func (w *worker) awaitRedis() {
	for end := time.Now().Add(patience); w.cache.Health().State != aside.StateConnected; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.session.fail("Redis is not in use after %v: %+v", patience, w.cache.Health())
			return
		}
	}
}

// final reads every key through every door until each has given the last version, or until the bound for that is long past:
// the rule will say that this was too late.
func (w *worker) final(exempt keySet) {
	t := w.newTape(rand.New(rand.NewPCG(w.Seed, ^uint64(w.Proc))))
	defer t.flush()
	last, err := w.source.ask(askRead, everyKey)
	if err != nil {
		w.session.fail("%v", err)
		return
	}
	end := time.Now().Add(3*time.Second + max(0, w.DegradedTTL) + time.Second)
	for d := range readDoors {
		for k := range keyCount {
			for !t.sees(d, k, last[k]) && !exempt.has(k) {
				if time.Now().After(end) {
					break
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
}

// pause waits as long as sources take: mostly a few milliseconds, but one time in so many up to 40, in which
// an invalidation can begin and end.
func pause(longOneIn int) {
	switch {
	case rand.IntN(longOneIn) == 0:
		time.Sleep(rand.N(40 * time.Millisecond))
	case rand.IntN(2) == 0:
		time.Sleep(rand.N(time.Millisecond))
	default:
		time.Sleep(rand.N(8 * time.Millisecond))
	}
}

func (w *worker) load(ctx context.Context, key int) (value, error) {
	values, err := w.loadKeys(ctx, groupOf(key), one(key))
	v, ok := values[key]
	if err == nil && !ok {
		err = errNotModified
	}
	return v, err
}

func (w *worker) loadMany(ctx context.Context, g *group, ids []string) (map[string]value, error) {
	var keys keySet
	named := make(map[string]value, len(ids))
	for _, id := range ids {
		if isOther(id) {
			named[id] = value{Key: -1}
		} else {
			keys |= one(keysByName[g.policy.Category+":"+id])
		}
	}
	if keys == 0 {
		return named, nil
	}
	values, err := w.loadKeys(ctx, g, keys)
	if err != nil {
		return named, err
	}
	same := make(map[string]error)
	keys.each(func(k int) {
		if v, ok := values[k]; ok {
			named[idOf(k)] = v
		} else {
			same[idOf(k)] = errNotModified
		}
	})
	if len(same) > 0 {
		return named, &aside.BatchError[string]{Errors: same}
	}
	return named, nil
}

// loadKeys is what all loaders do. There is a pause before the source is read, and one after it, in which what was read can
// grow old. Keys that are not modified have no value. A loader asks for the cached values first, or when it has the source's answer.
func (w *worker) loadKeys(ctx context.Context, g *group, keys keySet) (map[int]value, error) {
	pause(10)
	var cached priors
	askedFirst := rand.IntN(2) == 0
	if w.Windows != nil && askedFirst {
		cached = w.priorsOf(ctx, keys)
	}
	read := now()
	versions, err := w.source.ask(askRead, keys)
	if err != nil {
		return nil, err
	}
	pause(4)
	if w.fails() {
		return nil, errSource
	}
	if w.Windows != nil && !askedFirst {
		cached = w.priorsOf(ctx, keys)
	}
	if w.Windows == nil {
		aside.CurrentLoad(ctx).Tag(g.late...)
	}
	values, blind := make(map[int]value, len(versions)), rand.IntN(blindOneIn) == 0
	var same keySet
	keys.each(func(k int) {
		version := versions[0]
		versions = versions[1:]
		if w.Windows != nil && cached.answer(ctx, k, version, blind) {
			same |= one(k)
			return
		}
		if w.Broken == brokenKeeps && w.Windows != nil && rand.IntN(5) == 0 {
			w.kept[k].CompareAndSwap(0, 1+version)
			version = w.kept[k].Load() - 1
		}
		values[k] = value{Key: k, Version: version, Padding: padding[:g.padding]}
	})
	if asked, ok := w.behind(ctx); ok {
		done := now()
		var records []byte
		keys.each(func(k int) {
			records = appendRefresh(records, &refresh{asked: asked, read: read, done: done, key: uint8(k), same: same.has(k)})
		})
		w.session.send(frameRecords, records)
	}
	return values, nil
}

// padding cannot be compressed.
var padding = func() []byte {
	b := make([]byte, 4096)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(b)
	return b
}()

// A session is a worker's connection to the judge. What it sends are frames: a byte that says of what kind, the length of
// the rest as 4 bytes, and the rest.
type session struct {
	conn net.Conn
	mu   sync.Mutex
}

const (
	frameRecords = 'r'
	frameMetrics = 'm'
	frameWord    = 'w' // of what a worker has reached
	frameTrouble = 't' // what must not happen, in words
)

func (s *session) send(kind byte, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	head := binary.LittleEndian.AppendUint32([]byte{kind}, uint32(len(payload)))
	buffers := net.Buffers{head, payload}
	if _, err := buffers.WriteTo(s.conn); err != nil {
		os.Exit(3) // the judge has gone
	}
}

func (s *session) say(word string) { s.send(frameWord, []byte(word)) }

func (s *session) fail(format string, args ...any) {
	s.send(frameTrouble, fmt.Appendf(nil, format, args...))
}

func (w *worker) metrics() {
	m := w.cache.Metrics()
	sum := tally{
		TrackingLost: m.TrackingLost, InvalidationMessages: m.InvalidationMessages, Hasty: w.hasty.Load(), Left: w.left.Load(), Batches: w.batches.Load(), Ids: w.ids.Load(),
		Pauses: pauses.count.Load(), Failed: w.failed.Load(), Sets: w.sets.Load(),
	}
	for _, l := range m.Labels {
		sum.Loads += l.Loads
		sum.FillsRejected += l.FillsRejected
		sum.MemoryHits += l.MemoryHits
		sum.RedisHits += l.RedisHits
		sum.StaleHits += l.StaleHits
		sum.Fallbacks += l.Fallbacks
		sum.addStrategies(l)
	}
	text, err := json.Marshal(sum)
	if err != nil {
		panic(err)
	}
	w.session.send(frameMetrics, text)
}
