package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// backend is the source behind the cache: the upstreams and the database. Its code does not use the cache.
type backend struct {
	catalogue *catalogue
	upstreams *upstreams
	models    *modelSource
	store     *store
	calls     calls
	scratch   string // the directory of a temporary database, which close removes; empty without one
}

func startBackend(ctx context.Context, cfg config, log *slog.Logger) (_ *backend, err error) {
	b := &backend{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.catalogue, err = cfg.openCatalogue(); err != nil {
		return nil, err
	}
	if b.upstreams, err = startUpstreams(b.catalogue, cfg.compressed(cfg.upstreamMin), cfg.compressed(cfg.upstreamMax), log); err != nil {
		return nil, err
	}
	b.models = newModelSource(b.upstreams, b.catalogue, &b.calls, log)
	log.Info("upstreams are running",
		"gateways", len(b.catalogue.gateways), "models", b.catalogue.count, "megabytes", megabytes(b.catalogue.size),
		"fastest", cfg.compressed(cfg.upstreamMin), "slowest", cfg.compressed(cfg.upstreamMax), "speedup", cfg.speedup)

	file := cfg.db
	if file == "" {
		if b.scratch, err = os.MkdirTemp("", "aside-gateway-"); err != nil {
			return nil, fmt.Errorf("database: %w", err)
		}
		file = filepath.Join(b.scratch, "gateway.db")
	}
	b.store, err = openStore(ctx, file, fillSize{users: cfg.users, events: cfg.events(), seed: cfg.seed}, &b.calls, log)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// close stops the upstreams, and removes a temporary database.
func (b *backend) close() error {
	var errs []error
	if b.models != nil {
		b.models.close()
	}
	if b.upstreams != nil {
		b.upstreams.close()
	}
	if b.store != nil {
		errs = append(errs, b.store.close())
	}
	if b.scratch != "" {
		errs = append(errs, os.RemoveAll(b.scratch))
	}
	return errors.Join(errs...)
}

func megabytes(n int) float64 { return float64(n/10_000) / 100 }
