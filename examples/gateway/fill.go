package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// fillSize is the size of a new database.
type fillSize struct {
	users  int
	events int
	seed   uint64
}

// demoKey is the API key of an example user. Real API keys are random, and shown once. User 1 is the most active user, user 2 the next, and so on.
func demoKey(user int) string { return fmt.Sprintf("gw-demo-%04d", user) }

// vocabulary has the words of messages and of searches.
var vocabulary = strings.Fields(`
	about above account answer apply array batch before better between bounded
	branch budget buffer build cache call careful change channel check clear
	client clock column commit compare context copy correct count create cursor
	data deadline decide decode deep default delay delete depend design detail
	draft edge encode engine entry error event every example expire explain
	express fail fast field figure filter first follow format fresh function
	gateway generate group growth handle hash header histogram honest index input
	invalid join keep kernel latency layer lease limit list load local logic
	long lookup loop margin measure memory merge message method metric middle
	model module narrow network never notice number object offset often option
	order outcome output packet page parallel parse path pattern pause people
	plain point policy prefer price prompt proof query question queue quick range
	reader reason record reduce region release remote repeat reply report request
	result retry return review route sample scale schema second select server
	session shape share shard simple single slow small socket sorted source split
	stable stale start state step store stream string strong summary table target
	thread token total trace traffic under unique update upper user value vector
	version wait warm watch window worker write`)

var (
	ownPlans = []string{"free", "free", "free", "pro", "pro", "team"}
	ownApps  = []string{
		"notebook", "inkwell", "pilot", "lighthouse", "sketchpad", "relay", "orchard", "compass",
		"terminal", "postcard", "ledgerly", "tutor", "atlas", "switchboard", "canvas", "scribe",
	}
)

// filler writes the rows of a new database in one transaction. The same seed makes the same rows.
type filler struct {
	ctx    context.Context
	tx     *sql.Tx
	rnd    *rand.Rand
	now    int64
	corpus string
	models []string
}

func fill(ctx context.Context, db *sql.DB, size fillSize) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // has no effect after a commit
	f := &filler{ctx: ctx, tx: tx, rnd: rand.New(rand.NewPCG(size.seed, 3)), now: time.Now().Unix()}
	f.write()
	for _, family := range ownFamilies {
		for _, billions := range ownSizes {
			f.models = append(f.models, fmt.Sprintf("%s-%db", family, billions))
		}
	}
	for _, step := range []func(fillSize) error{f.users, f.sessions, f.events} {
		if err := step(size); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// write composes the corpus, of which all messages are excerpts.
func (f *filler) write() {
	var text strings.Builder
	for text.Len() < 1<<20 {
		for i := range 6 + f.rnd.IntN(12) {
			word := vocabulary[f.rnd.IntN(len(vocabulary))]
			if i > 0 {
				text.WriteByte(' ')
			} else {
				word = strings.ToUpper(word[:1]) + word[1:]
			}
			text.WriteString(word)
		}
		text.WriteString(". ")
	}
	f.corpus = text.String()
}

// text returns an excerpt of about n bytes from the corpus. It begins and ends at word boundaries.
func (f *filler) text(n int) string {
	from := f.rnd.IntN(len(f.corpus) - n - 32)
	from += strings.IndexByte(f.corpus[from:], ' ') + 1
	to := from + n
	to += strings.IndexByte(f.corpus[to:], ' ')
	return f.corpus[from:to]
}

// ago returns a random time in the last days. Later times are more likely.
func (f *filler) ago(days float64) int64 {
	part := f.rnd.Float64()
	return f.now - int64(part*part*days*86400)
}

func (f *filler) users(size fillSize) error {
	user, err := f.prepare(`INSERT INTO users (id, key_hash, name, email, plan, bio, preferences, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	entry, err := f.prepare(`INSERT INTO ledger (user_id, credits, created_at) VALUES (?, ?, ?)`)
	if err != nil {
		return err
	}
	for id := 1; id <= size.users; id++ {
		hash := sha256.Sum256([]byte(demoKey(id)))
		preferences, err := json.Marshal(map[string]any{
			"theme":             []string{"light", "dark", "system"}[f.rnd.IntN(3)],
			"favourite_models":  f.some(f.models, 3+f.rnd.IntN(8)),
			"favourite_apps":    f.some(ownApps, 1+f.rnd.IntN(5)),
			"system_prompt":     f.text(200 + f.rnd.IntN(400)),
			"stream":            f.rnd.IntN(4) > 0,
			"temperature":       float64(f.rnd.IntN(20)) / 10,
			"max_output_tokens": 1024 << f.rnd.IntN(4),
			"notify":            map[string]bool{"low_credits": true, "news": f.rnd.IntN(2) == 0},
		})
		if err != nil {
			return err
		}
		_, err = user.ExecContext(f.ctx, id, hash[:], fmt.Sprintf("User %d", id), fmt.Sprintf("user%d@example.com", id),
			ownPlans[f.rnd.IntN(len(ownPlans))], f.text(200+f.rnd.IntN(400)), string(preferences), f.ago(700))
		if err != nil {
			return err
		}
		for i := range 4 + f.rnd.IntN(12) {
			credits := -int64(1000 + f.rnd.IntN(400_000))
			if i%4 == 0 {
				credits = int64(1+f.rnd.IntN(5)) * 5_000_000
			}
			if _, err := entry.ExecContext(f.ctx, id, credits, f.ago(300)); err != nil {
				return err
			}
		}
	}
	return nil
}

// sessions writes the chat sessions. The active tenth of the users has about 20 sessions each, the first few users have 60, and all other users have
// one or two. A session has 5 to 50 KB of messages.
func (f *filler) sessions(size fillSize) error {
	session, err := f.prepare(`INSERT INTO sessions (id, user_id, title, model, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	message, err := f.prepare(`INSERT INTO messages (session_id, role, content, tokens, created_at) VALUES (?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	active := max(1, size.users/10)
	id := 0
	for user := 1; user <= size.users; user++ {
		count := 1 + f.rnd.IntN(2)
		if user <= active {
			count = 14 + 46*active/(active+6*(user-1))
		}
		for range count {
			id++
			created := f.ago(90)
			turns := 2 + f.rnd.IntN(6)
			last := created
			for i := range 2 * turns {
				role, length := "user", 300+f.rnd.IntN(1600)
				if i%2 == 1 {
					role, length = "assistant", 800+f.rnd.IntN(2800)
				}
				last = min(f.now, last+int64(f.rnd.IntN(120)))
				if _, err := message.ExecContext(f.ctx, id, role, f.text(length), length/4, last); err != nil {
					return err
				}
			}
			if _, err := session.ExecContext(f.ctx, id, user, f.text(20+f.rnd.IntN(40)), f.one(f.models), created, last); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *filler) events(size fillSize) error {
	event, err := f.prepare(`INSERT INTO events (user_id, app, model, tokens, cost, created_at) VALUES (?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	users := rand.NewZipf(f.rnd, 1.2, 20, uint64(size.users-1))
	for range size.events {
		tokens := 50 + f.rnd.IntN(8000)
		_, err := event.ExecContext(f.ctx, users.Uint64()+1, f.one(ownApps), f.one(f.models), tokens, tokens*(1+f.rnd.IntN(9)), f.ago(60))
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) prepare(query string) (*sql.Stmt, error) { return f.tx.PrepareContext(f.ctx, query) }

// one picks from the list. Earlier items are more likely.
func (f *filler) one(list []string) string {
	part := f.rnd.Float64()
	return list[int(part*part*float64(len(list)))]
}

func (f *filler) some(list []string, n int) []string {
	picked := make([]string, 0, n)
	for _, i := range f.rnd.Perm(len(list))[:min(n, len(list))] {
		picked = append(picked, list[i])
	}
	return picked
}
