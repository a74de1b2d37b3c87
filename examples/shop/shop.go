package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// The policies: one for each kind of value.
var (
	productPolicy = aside.Policy{Category: "products", TTL: time.Hour, Stale: 10 * time.Minute, MaxBatch: 500}
	pagePolicy    = aside.Policy{Category: "pages", TTL: 5 * time.Minute}
	profilePolicy = aside.Policy{Category: "profiles", TTL: 10 * time.Minute}
)

// A shop loads what is missing in its cache from its store.
type shop struct {
	store    *store
	cache    *aside.Cache
	products *aside.Loader[int64, Product]
	pages    *aside.Loader[Page, []int64]
	profiles *aside.Loader[string, Profile]
}

// newShop makes a shop. The options say where values are cached.
func newShop(s *store, opts aside.Options) (*shop, error) {
	opts.Policies = []aside.Policy{productPolicy, pagePolicy, profilePolicy}
	opts.NotFound = []error{sql.ErrNoRows}
	c, err := aside.New(opts)
	if err != nil {
		return nil, err
	}
	return &shop{
		store: s, cache: c,
		products: aside.NewBatchLoader(c, productPolicy, s.products),
		pages: aside.NewLoaderBy(c, pagePolicy,
			func(p *aside.Policy, page Page) aside.Key { return p.Key(page.Supplier, page.Limit, page.Offset) },
			func(ctx context.Context, page Page) ([]int64, error) {
				aside.CurrentLoad(ctx).Tag(ofSupplier(page.Supplier))
				return s.page(ctx, page)
			}),
		profiles: aside.NewLoaderBy(c, profilePolicy,
			func(p *aside.Policy, customer string) aside.Key { return p.Key(c.HashID(customer)) }, // no address in plain text
			s.profile),
	}, nil
}

// ofSupplier is the tag of all pages of a supplier.
func ofSupplier(id int64) string { return "supplier " + strconv.FormatInt(id, 10) }

// handler has the routes of the shop, and those of its operators.
func (s *shop) handler(operator aside.Secret) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /products/{id}", answer(s.getProduct))
	mux.HandleFunc("GET /suppliers/{id}/products", answer(s.getPage))
	mux.HandleFunc("GET /customers/{customer}", answer(func(r *http.Request) (any, error) { return s.profiles.Get(r.Context(), r.PathValue("customer")) }))
	mux.HandleFunc("PUT /products/{id}/price", answer(s.putPrice))
	mux.HandleFunc("POST /customers/{customer}/orders", answer(s.postOrder))

	keys := asidehttp.Options{APIKeys: []aside.Secret{operator}}
	mux.Handle("/admin/invalidate", asidehttp.AdminHandler(s.cache, keys))
	mux.Handle("/admin/metrics", asidehttp.Metrics(s.cache, keys))
	mux.Handle("/health", asidehttp.Health(s.cache, asidehttp.HealthOptions{}))
	return mux
}

func (s *shop) getProduct(r *http.Request) (any, error) {
	id, err := number(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return s.products.Get(r.Context(), id)
}

// getPage answers with products: their ids are one cached value, and each product is another one, so that a price is in one place.
func (s *shop) getPage(r *http.Request) (any, error) {
	supplier, err := number(r.PathValue("id"))
	offset, err2 := number("0" + r.FormValue("offset"))
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	ids, err := s.pages.Get(r.Context(), Page{Supplier: supplier, Limit: 5, Offset: offset})
	if err != nil {
		return nil, err
	}
	found, err := s.products.GetMany(r.Context(), ids)
	if err != nil {
		return nil, err
	}
	page := []Product{}
	for _, id := range ids {
		if p, ok := found[id]; ok { // it may have been deleted since
			page = append(page, p)
		}
	}
	return page, nil
}

// putPrice changes a product, and then all that is cached of it: the product, and the pages of its supplier, which are sorted by price.
func (s *shop) putPrice(r *http.Request) (any, error) {
	id, err := number(r.PathValue("id"))
	cents, err2 := number(r.FormValue("cents"))
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	p, err := s.store.setPrice(r.Context(), id, cents)
	if err != nil {
		return nil, err
	}
	_, err = s.cache.InvalidateChanges(r.Context(), aside.Changes{Keys: []aside.Key{s.products.Key(id)}, Tags: []string{ofSupplier(p.Supplier)}})
	return p, err
}

// postOrder sells a product, and invalidates what the transaction has changed once it is committed.
func (s *shop) postOrder(r *http.Request) (any, error) {
	customer := r.PathValue("customer")
	id, err := number(r.FormValue("product"))
	if err != nil {
		return nil, err
	}
	if _, err := s.profiles.Get(r.Context(), customer); err != nil {
		return nil, err // an unknown customer
	}
	if err := s.store.order(r.Context(), customer, id); err != nil {
		return nil, err
	}
	_, err = s.cache.Invalidate(r.Context(), s.products.Key(id), s.profiles.Key(customer))
	return "sold", err
}

var errBadRequest = errors.New("not a number")

func number(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", text, errBadRequest)
	}
	return n, nil
}

// answer writes what a handler returns as JSON, or the status that fits its error.
func answer(handle func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := handle(r)
		switch {
		case errors.Is(err, errBadRequest):
			http.Error(w, err.Error(), http.StatusBadRequest)
		case errors.Is(err, errSoldOut):
			http.Error(w, err.Error(), http.StatusConflict)
		case errors.Is(err, sql.ErrNoRows): // of a write, which the cache has not seen
			http.NotFound(w, r)
		case err != nil:
			asidehttp.Error(w, err)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v) // the client may have left
		}
	}
}
