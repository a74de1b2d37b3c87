package before

import (
	"context"
	"strconv"
	"time"

	"github.com/viccon/sturdyc"
)

// A Product is a row of the catalogue.
type Product struct {
	ID    int
	Name  string
	Cents int
}

// Products are the products of a catalogue, by id.
type Products struct {
	cached *sturdyc.Client[Product]
	key    sturdyc.KeyFn
	query  func(ctx context.Context, ids []int) (map[int]Product, error)
}

// NewProducts caches what query returns: the products with these ids, without those that do not exist.
func NewProducts(query func(ctx context.Context, ids []int) (map[int]Product, error)) *Products {
	c := sturdyc.New[Product](100_000, 64, 11*time.Minute, 10,
		sturdyc.WithEarlyRefreshes(10*time.Minute, 11*time.Minute, 11*time.Minute, time.Second),
		sturdyc.WithMissingRecordStorage(),
	)
	return &Products{cached: c, key: c.BatchKeyFn("products"), query: query}
}

// Many returns those of the products that exist, by one query for all that are missing.
func (p *Products) Many(ctx context.Context, ids []int) (map[int]Product, error) {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.Itoa(id)
	}
	found, err := p.cached.GetOrFetchBatch(ctx, texts, p.key, p.fetch)
	if err != nil {
		return nil, err
	}
	products := make(map[int]Product, len(found))
	for _, product := range found {
		products[product.ID] = product
	}
	return products, nil
}

func (p *Products) fetch(ctx context.Context, texts []string) (map[string]Product, error) {
	ids := make([]int, len(texts))
	for i, text := range texts {
		id, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		ids[i] = id
	}
	found, err := p.query(ctx, ids)
	if err != nil {
		return nil, err
	}
	products := make(map[string]Product, len(found))
	for id, product := range found {
		products[strconv.Itoa(id)] = product
	}
	return products, nil
}

// Changed removes a product that was changed in the database, in this process.
func (p *Products) Changed(_ context.Context, id int) error {
	p.cached.Delete(p.key(strconv.Itoa(id)))
	return nil
}
