package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// This file has the loaders of all values except models. They run real SQL queries, without artificial delays. Each query counts as one backend call.

type sessionSummary struct {
	ID        int64  `json:"id"`
	Title     string `json:"title"`
	Model     string `json:"model"`
	CreatedAt int64  `json:"created_at"`
	UpdatedAt int64  `json:"updated_at"`
	Messages  int64  `json:"messages"`
	Opening   string `json:"opening"`
	Latest    string `json:"latest"`
}

type sessionPage struct {
	Sessions []sessionSummary `json:"sessions"`
	Limit    int64            `json:"limit"`
	Offset   int64            `json:"offset"`
	Total    int64            `json:"total"`
}

func (st *store) sessionPage(ctx context.Context, user, limit, offset int64) (page sessionPage, err error) {
	page.Limit, page.Offset = limit, offset
	if page.Total, err = st.sessionCount(ctx, opSessionList, user); err != nil {
		return page, err
	}
	page.Sessions, err = collect(ctx, st, opSessionList, func(rows *sql.Rows, s *sessionSummary) error {
		return rows.Scan(&s.ID, &s.Title, &s.Model, &s.CreatedAt, &s.UpdatedAt, &s.Messages, &s.Opening, &s.Latest)
	}, `
		SELECT s.id, s.title, s.model, s.created_at, s.updated_at,
			(SELECT count(*) FROM messages m WHERE m.session_id = s.id),
			(SELECT substr(m.content, 1, 3000) FROM messages m WHERE m.session_id = s.id ORDER BY m.id LIMIT 1),
			(SELECT substr(m.content, 1, 3000) FROM messages m WHERE m.session_id = s.id ORDER BY m.id DESC LIMIT 1)
		FROM sessions s WHERE s.user_id = ?
		ORDER BY s.updated_at DESC, s.id DESC LIMIT ? OFFSET ?`, user, limit, offset)
	return page, err
}

func (st *store) sessionCount(ctx context.Context, o op, user int64) (int64, error) {
	return one(ctx, st, o, func(rows *sql.Rows, n *int64) error { return rows.Scan(n) },
		`SELECT count(*) FROM sessions WHERE user_id = ?`, user)
}

type message struct {
	ID        int64  `json:"id"`
	Role      string `json:"role"`
	Content   string `json:"content"`
	Tokens    int64  `json:"tokens"`
	CreatedAt int64  `json:"created_at"`
}

type session struct {
	ID        int64     `json:"id"`
	Title     string    `json:"title"`
	Model     string    `json:"model"`
	CreatedAt int64     `json:"created_at"`
	UpdatedAt int64     `json:"updated_at"`
	Messages  []message `json:"messages"` // a page of messages, oldest first
}

// messagesPage is the maximum number of messages in an answer. It bounds the size of the answer for a long session.
const messagesPage = 50

// session returns a session with its latest messages, or with the messages before the message id before, if before is not 0.
func (st *store) session(ctx context.Context, user, id, before int64) (session, error) {
	s, err := one(ctx, st, opSession, func(rows *sql.Rows, s *session) error {
		return rows.Scan(&s.ID, &s.Title, &s.Model, &s.CreatedAt, &s.UpdatedAt)
	}, `SELECT id, title, model, created_at, updated_at FROM sessions WHERE id = ? AND user_id = ?`, id, user)
	if err != nil {
		return s, err
	}
	s.Messages, err = collect(ctx, st, opSession, func(rows *sql.Rows, m *message) error {
		return rows.Scan(&m.ID, &m.Role, &m.Content, &m.Tokens, &m.CreatedAt)
	}, `SELECT id, role, content, tokens, created_at FROM messages WHERE session_id = ?1 AND (?2 = 0 OR id < ?2) ORDER BY id DESC LIMIT ?3`, id, before, messagesPage)
	slices.Reverse(s.Messages)
	return s, err
}

// hasMessage reports whether a message belongs to a session.
func (st *store) hasMessage(ctx context.Context, id, message int64) (bool, error) {
	return one(ctx, st, opSession, func(rows *sql.Rows, found *bool) error { return rows.Scan(found) },
		`SELECT EXISTS (SELECT 1 FROM messages WHERE id = ? AND session_id = ?)`, message, id)
}

type searchHit struct {
	SessionID int64  `json:"session_id"`
	Title     string `json:"title"`
	MessageID int64  `json:"message_id"`
	Role      string `json:"role"`
	Excerpt   string `json:"excerpt"`
}

type searchResult struct {
	Query string      `json:"query"`
	Hits  []searchHit `json:"hits"`
}

// search returns the user's latest messages that contain the text.
func (st *store) search(ctx context.Context, user int64, text string) (searchResult, error) {
	like := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%"
	hits, err := collect(ctx, st, opSearch, func(rows *sql.Rows, h *searchHit) error {
		return rows.Scan(&h.SessionID, &h.Title, &h.MessageID, &h.Role, &h.Excerpt)
	}, `
		SELECT s.id, s.title, m.id, m.role, substr(m.content, max(1, instr(lower(m.content), ?) - 120), 300)
		FROM sessions s JOIN messages m ON m.session_id = s.id
		WHERE s.user_id = ? AND m.content LIKE ? ESCAPE '\'
		ORDER BY m.id DESC LIMIT 25`, text, user, like)
	return searchResult{Query: text, Hits: hits}, err
}

type modelUse struct {
	Model    string `json:"model"`
	Sessions int64  `json:"sessions"`
}

type chatStats struct {
	Sessions int64      `json:"sessions"`
	Messages int64      `json:"messages"`
	Tokens   int64      `json:"tokens"`
	Models   []modelUse `json:"models"`
}

func (st *store) chatStats(ctx context.Context, user int64) (chatStats, error) {
	stats, err := one(ctx, st, opChatStats, func(rows *sql.Rows, c *chatStats) error {
		return rows.Scan(&c.Sessions, &c.Messages, &c.Tokens)
	}, `
		SELECT count(DISTINCT s.id), count(m.id), coalesce(sum(m.tokens), 0)
		FROM sessions s LEFT JOIN messages m ON m.session_id = s.id WHERE s.user_id = ?`, user)
	if err != nil {
		return stats, err
	}
	stats.Models, err = collect(ctx, st, opChatStats, func(rows *sql.Rows, m *modelUse) error {
		return rows.Scan(&m.Model, &m.Sessions)
	}, `SELECT model, count(*) FROM sessions WHERE user_id = ? GROUP BY model ORDER BY 2 DESC, 1 LIMIT 10`, user)
	return stats, err
}

type profile struct {
	ID          int64           `json:"id"`
	Name        string          `json:"name"`
	Email       string          `json:"email"`
	Plan        string          `json:"plan"`
	Bio         string          `json:"bio"`
	Preferences json.RawMessage `json:"preferences"`
	CreatedAt   int64           `json:"created_at"`
}

func (st *store) profile(ctx context.Context, user int64) (profile, error) {
	return one(ctx, st, opProfile, func(rows *sql.Rows, p *profile) error {
		return rows.Scan(&p.ID, &p.Name, &p.Email, &p.Plan, &p.Bio, (*[]byte)(&p.Preferences), &p.CreatedAt)
	}, `SELECT id, name, email, plan, bio, preferences, created_at FROM users WHERE id = ?`, user)
}

// credits has sums of the ledger, in millionths of a credit.
type credits struct {
	Balance int64 `json:"balance"`
	Bought  int64 `json:"bought"`
	Spent   int64 `json:"spent"`
}

func (st *store) credits(ctx context.Context, user int64) (credits, error) {
	return one(ctx, st, opCredits, func(rows *sql.Rows, c *credits) error {
		return rows.Scan(&c.Balance, &c.Bought, &c.Spent)
	}, `
		SELECT coalesce(sum(credits), 0), coalesce(sum(credits) FILTER (WHERE credits > 0), 0),
			coalesce(-sum(credits) FILTER (WHERE credits < 0), 0)
		FROM ledger WHERE user_id = ?`, user)
}

// period is the time that an activity answer covers, and the length of its steps.
type period struct {
	span, step time.Duration
}

var periods = map[string]period{
	"day":   {24 * time.Hour, time.Hour},
	"week":  {7 * 24 * time.Hour, 24 * time.Hour},
	"month": {30 * 24 * time.Hour, 24 * time.Hour},
}

type activityStep struct {
	From     int64 `json:"from"`
	Requests int64 `json:"requests"`
	Tokens   int64 `json:"tokens"`
	Cost     int64 `json:"cost"`
}

type activity struct {
	Period string         `json:"period"`
	Steps  []activityStep `json:"steps"`
}

func (st *store) activity(ctx context.Context, user int64, name string) (activity, error) {
	p, ok := periods[name]
	if !ok {
		return activity{}, fmt.Errorf("no period %q", name)
	}
	step := int64(p.step / time.Second)
	steps, err := collect(ctx, st, opActivity, func(rows *sql.Rows, a *activityStep) error {
		return rows.Scan(&a.From, &a.Requests, &a.Tokens, &a.Cost)
	}, `
		SELECT created_at / ?1 * ?1, count(*), sum(tokens), sum(cost)
		FROM events WHERE user_id = ?2 AND created_at >= ?3 GROUP BY 1 ORDER BY 1`,
		step, user, time.Now().Add(-p.span).Unix())
	return activity{Period: name, Steps: steps}, err
}

type rank struct {
	Name     string `json:"name"`
	Requests int64  `json:"requests"`
	Users    int64  `json:"users"`
	Tokens   int64  `json:"tokens"`
	Cost     int64  `json:"cost"`
}

type ranking struct {
	Of    string `json:"of"`
	Ranks []rank `json:"ranks"`
}

// rankings reads every event. It is the slowest query of the example.
func (st *store) ranking(ctx context.Context, o op, of, column string) (ranking, error) {
	ranks, err := collect(ctx, st, o, func(rows *sql.Rows, r *rank) error {
		return rows.Scan(&r.Name, &r.Requests, &r.Users, &r.Tokens, &r.Cost)
	}, `
		SELECT `+column+`, count(*), count(DISTINCT user_id), sum(tokens), sum(cost)
		FROM events GROUP BY 1 ORDER BY 4 DESC LIMIT 100`)
	return ranking{Of: of, Ranks: ranks}, err
}

func (st *store) rankModels(ctx context.Context) (ranking, error) {
	return st.ranking(ctx, opRankModels, "models", "model")
}

func (st *store) rankApps(ctx context.Context) (ranking, error) {
	return st.ranking(ctx, opRankApps, "apps", "app")
}

// userSessions has the ids of a user's sessions, latest first.
type userSessions struct {
	user int64
	ids  []int64
}

// sessionIDs returns the sessions of all users, for the traffic of the report. It is not counted as a backend call.
func (st *store) sessionIDs(ctx context.Context) ([]userSessions, error) {
	rows, err := st.db.QueryContext(ctx, `SELECT user_id, id FROM sessions ORDER BY user_id, updated_at DESC, id DESC`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []userSessions
	for rows.Next() {
		var user, id int64
		if err := rows.Scan(&user, &id); err != nil {
			return nil, err
		}
		if len(list) == 0 || list[len(list)-1].user != user {
			list = append(list, userSessions{user: user})
		}
		last := &list[len(list)-1]
		last.ids = append(last.ids, id)
	}
	return list, rows.Err()
}

// addMessage stores a message with its cost and its event. It returns the message and the number of the user's sessions.
func (st *store) addMessage(ctx context.Context, user, sessionID int64, content string) (m message, sessions int64, err error) {
	m = message{Role: "user", Content: content, Tokens: int64(1 + len(content)/4), CreatedAt: time.Now().Unix()}
	st.calls.add(opMessage)
	tx, err := st.db.BeginTx(ctx, nil)
	if err != nil {
		return m, 0, err
	}
	defer tx.Rollback() //nolint:errcheck // has no effect after a commit
	// The update comes first. A transaction that begins with a write waits for other transactions. A transaction that begins with a read could fail
	// at its first write, and would have to start again.
	changed, err := tx.ExecContext(ctx, `UPDATE sessions SET updated_at = ? WHERE id = ? AND user_id = ?`, m.CreatedAt, sessionID, user)
	if err != nil {
		return m, 0, err
	}
	if n, err := changed.RowsAffected(); err != nil || n == 0 {
		return m, 0, errOr(err, errNoRow)
	}
	added, err := tx.ExecContext(ctx, `INSERT INTO messages (session_id, role, content, tokens, created_at) VALUES (?, ?, ?, ?, ?)`,
		sessionID, m.Role, m.Content, m.Tokens, m.CreatedAt)
	if err != nil {
		return m, 0, err
	}
	if m.ID, err = added.LastInsertId(); err != nil {
		return m, 0, err
	}
	cost := 10 * m.Tokens
	if _, err := tx.ExecContext(ctx, `INSERT INTO ledger (user_id, credits, created_at) VALUES (?, ?, ?)`, user, -cost, m.CreatedAt); err != nil {
		return m, 0, err
	}
	if _, err := tx.ExecContext(ctx, `
		INSERT INTO events (user_id, app, model, tokens, cost, created_at)
		SELECT ?, 'gateway', model, ?, ?, ? FROM sessions WHERE id = ?`, user, m.Tokens, cost, m.CreatedAt, sessionID); err != nil {
		return m, 0, err
	}
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM sessions WHERE user_id = ?`, user).Scan(&sessions); err != nil {
		return m, 0, err
	}
	return m, sessions, tx.Commit()
}

func errOr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}
