package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// partialTTL is the TTL of a catalogue without some gateways. It is shorter than the hour of a complete catalogue. It is long enough that one broken
// upstream does not make every request load from all the others.
const partialTTL = time.Minute

func (srv *server) getModels(w http.ResponseWriter, r *request) error {
	name, o := r.URL.Query().Get("gateway"), opModelsGateway
	if name == "" || name == "all" {
		name, o = "all", opModelsAll
	} else if _, ok := srv.models.urls[name]; !ok {
		return newProblem(http.StatusNotFound, "there is no gateway %q", name)
	}
	return answerBody(srv, w, r, o, srv.keys.modelsKey(name), catalogueOf(srv.models, name))
}

// loadVersionFunc loads what the upstreams have now, or returns errNotModified if that is the version with the known ETag.
type loadVersionFunc func(ctx context.Context, known string) (version, error)

// catalogueOf loads the catalogue of one gateway, or of "all".
func catalogueOf(src *modelSource, name string) loadVersionFunc {
	return func(ctx context.Context, known string) (version, error) {
		if name != "all" {
			return src.gateway(ctx, name, known)
		}
		v, missing, err := src.all(ctx, known)
		if len(missing) > 0 {
			aside.CurrentLoad(ctx).TTL(partialTTL)
		}
		return v, err
	}
}

// loadVersion is the loader of bodies, for requests and for warmings. It keeps the cached version if the upstreams say that it is still right.
func loadVersion(ctx context.Context, load loadVersionFunc) (asidehttp.Body, error) {
	cached, _ := aside.Previous[asidehttp.Body](ctx) // its ETag is empty if nothing is cached
	v, err := load(ctx, cached.ETag)
	switch {
	case errors.Is(err, errNotModified):
		return nil, aside.ErrNotModified
	case err != nil:
		return nil, err
	}
	aside.CurrentLoad(ctx).ETag(v.etag)
	return asidehttp.Pack("application/json", v.body), nil
}

func (srv *server) getModel(w http.ResponseWriter, r *request) error {
	id := r.PathValue("id")
	if _, ok := srv.models.carrier[id]; !ok {
		return newProblem(http.StatusNotFound, "no gateway carries a model %q", id)
	}
	return answerBody(srv, w, r, opModelDetail, srv.keys.modelKey(id), func(ctx context.Context, known string) (version, error) {
		return srv.models.model(ctx, id, known)
	})
}

func (srv *server) getRankModels(w http.ResponseWriter, r *request) error {
	return answer(srv, w, r, opRankModels, srv.keys.rankModelsKey(), srv.store.rankModels)
}

func (srv *server) getRankApps(w http.ResponseWriter, r *request) error {
	return answer(srv, w, r, opRankApps, srv.keys.rankAppsKey(), srv.store.rankApps)
}

// pageSizes are the permitted limits. Offsets are multiples of the limit. So one user has few cached lists, and a new message can invalidate all of
// them by key.
var pageSizes = []int64{10, 20, 50}

const maxOffset = 10_000

func (srv *server) getSessions(w http.ResponseWriter, r *request) error {
	limit, err := number(r, "limit", 50)
	if err != nil {
		return err
	}
	offset, err := number(r, "offset", 0)
	if err != nil {
		return err
	}
	if !slices.Contains(pageSizes, limit) {
		return badRequest("limit %d: want one of %v", limit, pageSizes)
	}
	if offset < 0 || offset > maxOffset || offset%limit != 0 {
		return badRequest("offset %d: want a multiple of the limit up to %d", offset, maxOffset)
	}
	return answer(srv, w, r, opSessionList, srv.keys.listKey(r.hash, limit, offset), func(ctx context.Context) (sessionPage, error) {
		return srv.store.sessionPage(ctx, r.user, limit, offset)
	})
}

func (srv *server) getSession(w http.ResponseWriter, r *request) error {
	id, err := sessionID(r)
	if err != nil {
		return err
	}
	before, err := number(r, "before", 0)
	if err != nil {
		return err
	}
	key := srv.keys.sessionKey(r.hash, id)
	switch {
	case before < 0:
		return badRequest("before %d: want the id of a message", before)
	case before > 0:
		key = srv.keys.olderKey(r.hash, id, before)
	}
	return answer(srv, w, r, opSession, key, func(ctx context.Context) (session, error) {
		s, err := srv.store.session(ctx, r.user, id, before)
		if err != nil || before == 0 {
			return s, err
		}
		// Messages are only added, so the page before an existing message never changes, and can be cached. The page before an id that does not exist
		// yet can change. There are also endlessly many such ids, so these pages are not cached.
		known, err := srv.store.hasMessage(ctx, id, before)
		if load := aside.CurrentLoad(ctx); load != nil && !known {
			load.NoStore()
		}
		return s, err
	})
}

// postMessage adds a message to a session, and invalidates the values that show it.
func (srv *server) postMessage(w http.ResponseWriter, r *request) error {
	r.sample.op = opMessage
	id, err := sessionID(r)
	if err != nil {
		return err
	}
	var posted struct {
		Content string `json:"content"`
	}
	const maxBody = 16 << 10
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&posted); err != nil {
		return badRequest(`send {"content": "..."} of at most %d bytes`, maxBody)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) || strings.TrimSpace(posted.Content) == "" {
		return badRequest(`send {"content": "..."}, not empty and nothing after it`)
	}
	added, sessions, err := srv.store.addMessage(r.Context(), r.user, id, posted.Content)
	if err != nil {
		return err
	}
	if err := srv.invalidateSession(r, id, sessions); err != nil {
		return err
	}
	r.sample.status = http.StatusCreated
	body, err := json.Marshal(added)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	writeJSON(w, http.StatusCreated, body)
	return nil
}

// invalidateSession invalidates the values that a new message changes: the session, all pages of the user's list (the session moves to the top of the
// first page), the chat statistics and the credits. Search results, activity and rankings are not invalidated: they may be as old as their TTL.
func (srv *server) invalidateSession(r *request, id, sessions int64) error {
	if srv.uncached {
		return nil
	}
	keys := []aside.Key{
		srv.keys.sessionKey(r.hash, id),
		srv.keys.chatStatsKey(r.hash),
		srv.keys.creditsKey(r.hash),
	}
	for _, limit := range pageSizes {
		for offset := int64(0); offset < max(sessions, 1) && offset <= maxOffset; offset += limit {
			keys = append(keys, srv.keys.listKey(r.hash, limit, offset))
		}
	}
	// The message is in the database, even if its sender no longer waits for the answer. So the old values have to be invalidated in any case.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 5*time.Second)
	defer cancel()
	_, err := srv.cache.Invalidate(ctx, keys...)
	return err
}

func (srv *server) getChatStats(w http.ResponseWriter, r *request) error {
	return answer(srv, w, r, opChatStats, srv.keys.chatStatsKey(r.hash), func(ctx context.Context) (chatStats, error) {
		return srv.store.chatStats(ctx, r.user)
	})
}

func (srv *server) getSearch(w http.ResponseWriter, r *request) error {
	// Texts that SQLite treats as equal are one search, and so they have one key.
	q := r.URL.Query().Get("q")
	text := strings.ToLower(strings.Join(strings.Fields(q), " "))
	if n := utf8.RuneCountInString(text); n < 2 || n > 100 || !utf8.ValidString(q) {
		return badRequest("q: want 2 to 100 characters to search for")
	}
	return answer(srv, w, r, opSearch, srv.keys.searchKey(r.hash, text), func(ctx context.Context) (searchResult, error) {
		return srv.store.search(ctx, r.user, text)
	})
}

func (srv *server) getProfile(w http.ResponseWriter, r *request) error {
	return answer(srv, w, r, opProfile, srv.keys.profileKey(r.hash), func(ctx context.Context) (profile, error) {
		return srv.store.profile(ctx, r.user)
	})
}

func (srv *server) getCredits(w http.ResponseWriter, r *request) error {
	return answer(srv, w, r, opCredits, srv.keys.creditsKey(r.hash), func(ctx context.Context) (credits, error) {
		return srv.store.credits(ctx, r.user)
	})
}

func (srv *server) getActivity(w http.ResponseWriter, r *request) error {
	name := r.URL.Query().Get("period")
	if name == "" {
		name = "day"
	}
	if _, ok := periods[name]; !ok {
		return badRequest("period %q: want day, week or month", name)
	}
	return answer(srv, w, r, opActivity, srv.keys.activityKey(r.hash, name), func(ctx context.Context) (activity, error) {
		return srv.store.activity(ctx, r.user, name)
	})
}

func sessionID(r *request) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, badRequest("session %q: want a positive number", r.PathValue("id"))
	}
	return id, nil
}

// number reads an integer parameter of the query.
func number(r *request, name string, fallback int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, badRequest("%s %q: want a number", name, text)
	}
	return n, nil
}
