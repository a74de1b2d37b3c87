package aside_test

import (
	"context"
	"encoding/json"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// During a deployment, a field with omitempty gets another name:
//
//  1. the older build stores {"id":1,"price":12}
//  2. the newer one, whose field is called cost, reads it: the price is unknown to it, and its cost is empty
//  3. encoded again for the comparison, the value has no cost either, so nothing seems to be missing
//  4. the newer build has a hit with a cost of 0
func TestANewerBuildHasNoHitWithoutAFieldThatHasAnotherName(t *testing.T) {
	t.Parallel()
	type older struct {
		ID    int `json:"id"`
		Price int `json:"price,omitempty"`
	}
	type newer struct {
		ID   int `json:"id"`
		Cost int `json:"cost,omitempty"`
	}
	server := redistest.Start(t)
	a, b := connected(t, at(server.Addr())), connected(t, at(server.Addr()))
	require.NoError(t, aside.Set(t.Context(), a, items.Key("a"), older{1, 12}))
	r, err := aside.Lookup(t.Context(), b, items.Key("a"), func(context.Context) (newer, error) { return newer{1, 12}, nil })
	require.NoError(t, err)
	require.Equal(t, newer{1, 12}, r.Value, "%s %s", r.Status, r.Tier)
}

// A nil pointer says that there is nothing: read as what it would point to, it becomes a value that nobody has stored.
func TestANilPointerIsNoHitForItsElement(t *testing.T) {
	t.Parallel()
	type user struct{ Name string }
	everyMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		require.NoError(t, aside.Set[*user](t.Context(), c, items.Key("a"), nil))
		v, err := aside.Get[user](t.Context(), c, items.Key("a"))
		require.Error(t, err, "got %+v", v)
	})
}

type Trail struct {
	By string `json:"by,omitempty"`
}

// The process that has loaded a value can read By; one that has read it in Redis panics there.
func TestAnotherProcessCanReadAFieldOfAnEmbeddedPointer(t *testing.T) {
	t.Parallel()
	type document struct {
		*Trail
		Title string `json:"title"`
	}
	server := redistest.Start(t)
	a, b := connected(t, at(server.Addr())), connected(t, at(server.Addr()))
	load := func(context.Context) (document, error) { return document{&Trail{}, "t"}, nil }
	require.NoError(t, aside.Set(t.Context(), a, items.Key("a"), document{&Trail{}, "t"}))
	v, err := aside.GetOrLoad(t.Context(), b, items.Key("a"), load)
	require.NoError(t, err)
	require.NotPanics(t, func() { _ = v.By })
}

// Twins reach one node by very many ways; a cycle would be refused.
type Twins struct {
	Left, Right *Twins `json:",omitempty"`
}

// A value of 21 nodes, which take 336 bytes: each node more takes twice as long, so 50 take years. Set does not return, though its context
// ends and MaxValueBytes is small.
func TestSetOfAValueThatIsReachedByVeryManyWaysIsBounded(t *testing.T) {
	o := at(redistest.Start(t).Addr())
	o.MaxValueBytes = 1 << 20
	c := connected(t, o)
	top := new(Twins)
	for range 20 {
		top = &Twins{top, top}
	}
	before := bytesAllocated()
	err := aside.Set(t.Context(), c, items.Key("a"), top)
	require.Error(t, err)
	require.Less(t, (bytesAllocated()-before)>>20, uint64(40), "MiB, for a bound of 1 MiB: %v", err)
}

func bytesAllocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// masked stands for a codec that encrypts: each tenant has a key of its own.
type masked struct{ key byte }

func (masked) Name() string { return "masked" }

func (m masked) mask(data []byte) []byte {
	out := make([]byte, len(data))
	for i, b := range data {
		out[i] = b ^ m.key
	}
	return out
}

func (m masked) Marshal(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	return m.mask(data), err
}

func (m masked) Unmarshal(data []byte, v any) error { return json.Unmarshal(m.mask(data), v) }

// Two policies of one name are one policy, though their codecs differ: what the second one stores is encoded by the first one's codec.
func TestAValueIsEncodedByItsOwnPolicysCodec(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := connected(t, at(server.Addr()))
	policy := func(key byte) *aside.Policy {
		return &aside.Policy{Name: "tenants", Category: "tenants", TTL: time.Hour, Codec: masked{key}}
	}
	require.NoError(t, aside.Set(t.Context(), c, policy(0x11).Key("a"), "secret of a"))
	if err := aside.Set(t.Context(), c, policy(0x22).Key("b"), "secret of b"); err != nil {
		return // two different policies
	}
	stored := server.MustDo(t, "GET", "tenants:b").(string)
	require.NotContains(t, string(masked{0x11}.mask([]byte(stored))), "secret of b", "it is encoded with the key of a")
}
