package contract_test

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// labelsHere are the labels of this goroutine, as a profile shows them. No two goroutines may call it at once.
func labelsHere(t *testing.T) map[string]string {
	t.Helper()
	var profile bytes.Buffer
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))
	for stack := range strings.SplitSeq(profile.String(), "\n\n") {
		if !strings.Contains(stack, "contract_test.labelsHere") {
			continue
		}
		labels := map[string]string{}
		if m := regexp.MustCompile(`(?m)^# labels: (.*)$`).FindStringSubmatch(stack); m != nil {
			require.NoError(t, json.Unmarshal([]byte(m[1]), &labels))
		}
		return labels
	}
	t.Fatal("this goroutine is not in the profile")
	return nil
}

// A labelCodec looks at the labels of the goroutine that encodes, which has run the loader before.
type labelCodec struct {
	t      *testing.T
	labels map[string]string
}

func (*labelCodec) Name() string { return "labels" }

func (c *labelCodec) Marshal(v any) ([]byte, error) {
	c.labels = labelsHere(c.t)
	return json.Marshal(v)
}

func (*labelCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

func TestALoaderHasThePolicyAsALabelBesideTheLabelsOfItsCaller(t *testing.T) {
	t.Parallel()
	codec := &labelCodec{t: t}
	inner := aside.Policy{Name: "inner policy", Category: "items", TTL: time.Hour}
	outer := aside.Policy{Name: "outer policy", Category: "items", TTL: time.Hour, Codec: codec, CloneOnRead: true}
	for name, callers := range map[string][]string{"none": nil, "some": {"route", "/models"}} {
		c := asidetest.NewCache(t, aside.Options{})
		want := func(policy string) map[string]string {
			labels := map[string]string{"aside_policy": policy}
			for i := 0; i < len(callers); i += 2 {
				labels[callers[i]] = callers[i+1]
			}
			return labels
		}
		ofContext := func(ctx context.Context) map[string]string {
			labels := map[string]string{}
			pprof.ForLabels(ctx, func(key, value string) bool { labels[key] = value; return true })
			return labels
		}
		inLoader := func(ctx context.Context, policy string) {
			require.Equal(t, want(policy), labelsHere(t), name)
			require.Equal(t, want(policy), ofContext(ctx), name)
			pprof.Do(ctx, pprof.Labels("query", "q"), func(ctx context.Context) {
				require.Len(t, ofContext(ctx), len(want(policy))+1, "labels of the loader's own stand beside them")
			})
			require.NotNil(t, aside.CurrentLoad(ctx))
			require.Equal(t, 7, ctx.Value(labelsKey{}))
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			require.False(t, deadline.IsZero())
			derived, cancel := context.WithCancel(ctx)
			cancel()
			require.Error(t, derived.Err())
			require.NoError(t, ctx.Err())
		}
		ctx := context.WithValue(t.Context(), labelsKey{}, 7)
		pprof.Do(ctx, pprof.Labels(callers...), func(ctx context.Context) {
			_, err := aside.GetOrLoad(ctx, c, outer.Key(1), func(ctx context.Context) (string, error) {
				done := make(chan error)
				_, err := aside.GetOrLoad(ctx, c, inner.Key(2), func(ctx context.Context) (string, error) {
					go func() { defer close(done); inLoader(ctx, inner.Name) }() // goroutines of a loader have its labels
					<-done
					return "v", nil
				})
				require.NoError(t, err)
				inLoader(ctx, outer.Name)
				return "v", err
			})
			require.NoError(t, err)
			after := want("")
			delete(after, "aside_policy")
			require.Equal(t, after, codec.labels, "the label ends with the loader")
		})
	}
}

type labelsKey struct{}

func TestALoaderInABatchAndInACheckHasItsLabel(t *testing.T) {
	t.Parallel()
	policy := aside.Policy{Name: "labelled", Category: "items", TTL: time.Hour}
	var log asidetest.Logbook
	c := asidetest.NewCache(t, aside.Options{ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 1}, Logger: log.Logger()})
	labels := make(chan string, 10)
	l := aside.NewLoader(c, policy, func(ctx context.Context, id string) (string, error) {
		label, _ := pprof.Label(ctx, "aside_policy")
		labels <- label
		return id, nil
	})
	_, err := l.GetMany(t.Context(), []string{"a", "b"})
	require.NoError(t, err)
	_, err = l.Get(t.Context(), "a") // a hit, which is checked
	require.NoError(t, err)
	for range 3 {
		require.Equal(t, policy.Name, <-labels)
	}
}
