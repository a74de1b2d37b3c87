package contract_test

import (
	"context"
	"encoding/json"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// During a deployment, a field with omitempty gets another name:
//
//  1. the older build stores {"id":1,"price":12}
//  2. the newer one, whose field is called cost, reads it: the price is unknown to it, and its cost may be left out since it is empty
//  3. were it read, the newer build would have a hit with a cost of 0
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
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, a, asidetest.Items.Key("a"), older{1, 12})
	r, err := aside.Lookup(t.Context(), b, asidetest.Items.Key("a"), func(context.Context) (newer, error) { return newer{1, 12}, nil })
	require.NoError(t, err)
	require.Equal(t, newer{1, 12}, r.Value, "%s %s", r.Status, r.Tier)
}

// A nil pointer says that there is nothing: read as what it would point to, it becomes a value that nobody has stored.
func TestANilPointerIsNoHitForItsElement(t *testing.T) {
	t.Parallel()
	type user struct{ Name string }
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		asidetest.Stored[*user](t, c, asidetest.Items.Key("a"), nil)
		v, err := aside.Get[user](t.Context(), c, asidetest.Items.Key("a"))
		require.Error(t, err, "got %+v", v)
	})
}

type Trail struct {
	By string `json:"by,omitempty"`
}

// The process that has loaded a value can read By, and so can every other: a nil pointer in its place would end it.
func TestAnotherProcessCanReadAFieldOfAnEmbeddedPointer(t *testing.T) {
	t.Parallel()
	type document struct {
		*Trail
		Title string `json:"title"`
	}
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	load := func(context.Context) (document, error) { return document{&Trail{}, "t"}, nil }
	for _, c := range []*aside.Cache{a, b} {
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), load)
		require.NoError(t, err)
		require.NotPanics(t, func() { _ = v.By })
	}
}

// Twins reach one node by very many ways; a cycle would be refused.
type Twins struct {
	Left, Right *Twins `json:",omitempty"`
}

// A value of 21 nodes, which take 336 bytes, has two million when it is encoded, and each node more makes that twice as many: it is given up
// at MaxValueBytes.
func TestSetOfAValueThatIsReachedByVeryManyWaysIsBounded(t *testing.T) {
	o := asidetest.At(redistest.Start(t).Addr())
	o.MaxValueBytes = 1 << 20
	c := asidetest.Connected(t, o)
	top := new(Twins)
	for range 20 {
		top = &Twins{top, top}
	}
	before := bytesAllocated()
	err := aside.Set(t.Context(), c, asidetest.Items.Key("a"), top)
	require.ErrorContains(t, err, "value larger than MaxValueBytes")
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

// Two policies of one name are one policy only where their codecs are the same: else what the second one stores would be encoded by the
// first one's.
func TestAValueIsEncodedByItsOwnPolicysCodec(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	policy := func(key byte) *aside.Policy {
		return &aside.Policy{Name: "tenants", Category: "tenants", TTL: time.Hour, Codec: masked{key}}
	}
	asidetest.Stored(t, c, policy(0x11).Key("a"), "secret of a")
	if err := aside.Set(t.Context(), c, policy(0x22).Key("b"), "secret of b"); err != nil {
		return // two different policies
	}
	stored := server.MustDo(t, "GET", "tenants:b").(string)
	require.NotContains(t, string(masked{0x11}.mask([]byte(stored))), "secret of b", "it is encoded with the key of a")
}

// loose is a codec that Go cannot compare; withAny is one of which it learns that only when it tries.
type loose struct {
	masked
	hook func()
}

type withAny struct {
	masked
	any any
}

func TestCodecsThatCannotBeComparedAreComparedByTheirType(t *testing.T) {
	t.Parallel()
	c := asidetest.Connected(t, asidetest.At(redistest.Start(t).Addr()))
	set := func(name string, codec aside.Codec) error {
		p := aside.Policy{Name: name, Category: "compared", TTL: time.Hour, Codec: codec}
		return aside.Set(t.Context(), c, p.Key(name), "v")
	}
	for range 2 { // as a policy that is made anew for each call
		require.NoError(t, set("loose", loose{masked{1}, func() {}}))
		require.NoError(t, set("held", withAny{masked{1}, []int{1}}))
		require.NoError(t, set("same", masked{1}))
		require.NoError(t, set("json", nil))
	}
	require.Error(t, set("same", masked{2}))
	require.Error(t, set("same", &masked{1}))
	require.Error(t, set("same", loose{masked{1}, func() {}}))
	require.Error(t, set("json", masked{1}))
}

type Dated struct {
	time.Time
	Seats int
}

// A booking has its MarshalJSON from Dated, which has it from time.Time: Seats is written by nobody.
type booking struct{ Dated }

func TestAnotherProcessHasNoValueWithoutTheFieldsBesideAnEmbeddedTime(t *testing.T) {
	t.Parallel()
	for _, codec := range []aside.Codec{aside.JSON, aside.CBOR} {
		t.Run(codec.Name(), func(t *testing.T) {
			t.Parallel()
			p := asidetest.Items
			p.Codec = codec
			server := redistest.Start(t)
			a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
			want := booking{Dated{time.Unix(1, 0).UTC(), 7}}
			for _, c := range []*aside.Cache{a, b} {
				v, err := aside.GetOrLoad(t.Context(), c, p.Key("a"), func(context.Context) (booking, error) { return want, nil })
				require.NoError(t, err)
				require.Equal(t, want, v)
			}
		})
	}
}
