package migrate

import (
	"context"
	"time"

	"github.com/gatewayz/aside"
)

// A Product is a row of the catalogue.
type Product struct {
	ID    int
	Name  string
	Cents int
}

// Products are the products of a catalogue, by id.
type Products struct {
	cached *aside.Loader[int, Product]
}

// NewProducts caches what query returns: the products with these ids, without those that do not exist.
func NewProducts(c *aside.Cache, query func(ctx context.Context, ids []int) (map[int]Product, error)) *Products {
	p := aside.Policy{Name: "products", Category: "products", TTL: 10 * time.Minute, Stale: time.Minute, NegativeTTL: time.Minute}
	return &Products{aside.NewBatchLoader(c, p, query)}
}

// Many returns those of the products that exist, by one query for all that are missing.
func (p *Products) Many(ctx context.Context, ids []int) (map[int]Product, error) {
	return p.cached.GetMany(ctx, ids)
}

// Changed removes a product that was changed in the database.
func (p *Products) Changed(ctx context.Context, id int) error {
	_, err := p.cached.Invalidate(ctx, id)
	return err
}
