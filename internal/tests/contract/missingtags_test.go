package contract_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// onMissingTags runs a test on a server, on one that does not tell of changes, and in a cluster. Its last argument runs a command on each
// node.
func onMissingTags(t *testing.T, test func(t *testing.T, a, b *aside.Cache, tag string, each func(args ...string) []any)) {
	for name, start := range map[string]func(t *testing.T) (aside.Options, func(args ...string) []any, string){
		"tracked": func(t *testing.T) (aside.Options, func(args ...string) []any, string) {
			server := redistest.Start(t)
			return asidetest.At(server.Addr()), func(args ...string) []any { return []any{server.MustDo(t, args...)} }, "x"
		},
		"untracked": func(t *testing.T) (aside.Options, func(args ...string) []any, string) {
			server := asidetest.StartUntracked(t)
			return asidetest.Anonymously(server.Addr()), func(args ...string) []any { return []any{server.MustDo(t, args...)} }, "x"
		},
		"cluster": func(t *testing.T) (aside.Options, func(args ...string) []any, string) {
			cluster := redistest.StartCluster(t)
			tag := "x" // on another node than the sequence is
			for i := 0; cluster.NodeOf("%t:"+tag) == cluster.NodeOf("%tags"); i++ {
				tag = "x" + strconv.Itoa(i)
			}
			return asidetest.InClusterOf(cluster), func(args ...string) (answers []any) {
				for _, node := range cluster.Primaries() {
					answer, err := node.Do(args...)
					require.True(t, err == nil || strings.HasPrefix(err.Error(), "MOVED"), err)
					if err == nil {
						answers = append(answers, answer)
					}
				}
				return answers
			}, tag
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, each, tag := start(t)
			test(t, asidetest.Connected(t, o), asidetest.Connected(t, o), tag, each)
		})
	}
}

// Hazard 122: the loader has read the source, a tag is invalidated that has no key in Redis, and then the loader says that it has that
// tag. The invalidation leaves no key either, and the load is refused all the same.
func TestAMissingTagThatIsInvalidatedBeatsALoadThatNamesItTooLate(t *testing.T) {
	t.Parallel()
	onMissingTags(t, func(t *testing.T, a, b *aside.Cache, tag string, each func(args ...string) []any) {
		late := func(h *asidetest.HeldLoad, v string) func(context.Context) (string, error) {
			return func(ctx context.Context) (string, error) {
				v, err := h.Load(v)(ctx)
				aside.CurrentLoad(ctx).Tag(tag)
				return v, err
			}
		}
		asidetest.Stored(t, a, asidetest.Items.Key("warm"), "v")
		old := asidetest.NewHeld()
		first := asidetest.Background(t, a, asidetest.Items.Key("a"), late(old, "old")) // 1. it reads the source
		<-old.Began
		receipt, err := b.InvalidateTags(t.Context(), tag) // 2. another process invalidates the tag
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
		for _, n := range each("EXISTS", "%t:"+tag) {
			require.EqualValues(t, 0, n)
		}
		close(old.Release) // 3. it names the tag
		require.Equal(t, "old", <-first)
		asidetest.Eventually(t, "it is refused", func() bool { return asidetest.Refused(a) > 0 })
		for _, c := range []*aside.Cache{b, a} {
			v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", v)
		}
	})
}

// Hazard 122: a tag has been read or made before the load, and its key is evicted. It is invalidated, which leaves no key, and the load is
// stored with the generation that was.
func TestAMissingTagThatIsInvalidatedBeatsALoadThatCarriesItsEvictedGeneration(t *testing.T) {
	t.Parallel()
	onMissingTags(t, func(t *testing.T, a, b *aside.Cache, tag string, each func(args ...string) []any) {
		asidetest.Stored(t, a, asidetest.Items.Key("warm"), "v")
		old := asidetest.NewHeld()
		first := asidetest.Background(t, a, asidetest.Items.Key("a"), old.Load("old"), aside.WithTags(tag))
		<-old.Began
		each("DEL", "%t:"+tag)
		receipt, err := b.InvalidateTags(t.Context(), tag)
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
		removed, err := receipt.WaitCleanup(t.Context())
		require.NoError(t, err)
		require.Zero(t, removed)
		close(old.Release)
		require.Equal(t, "old", <-first)
		for _, c := range []*aside.Cache{b, a} {
			v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("new"), aside.WithTags(tag), aside.Strong())
			require.NoError(t, err)
			require.Equal(t, "new", v)
		}
	})
}

// Hazard 79: however many tags are invalidated that nothing carries, nothing is left of them.
func TestTagsThatNothingCarriesLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	onMissingTags(t, func(t *testing.T, a, b *aside.Cache, tag string, each func(args ...string) []any) {
		asidetest.Stored(t, a, asidetest.Items.Key("a"), "v")
		asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("v"))
		_, err := b.InvalidateTags(t.Context(), "first")
		require.NoError(t, err)
		size := func() (n int) {
			for _, of := range each("KEYS", "*") {
				n += len(asidetest.WithoutProbes(of))
			}
			return n
		}
		before := size()
		for i := range 10 {
			tags := make([]string, 1000)
			for j := range tags {
				tags[j] = fmt.Sprint("made up ", i, " ", j)
			}
			receipt, err := b.InvalidateTags(t.Context(), tags...)
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			removed, err := receipt.WaitCleanup(t.Context())
			require.NoError(t, err)
			require.Zero(t, removed)
		}
		require.LessOrEqual(t, size(), before+2)
		for _, keys := range each("KEYS", "%t:*") {
			require.Empty(t, keys)
		}
		v, err := aside.Get[string](t.Context(), b, asidetest.Items.Key("a"))
		require.NoError(t, err)
		require.Equal(t, "v", v)
	})
}
