package asidehttp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/logs"
)

// Options configures Handler and Metrics.
type Options struct {
	// APIKeys are bearer keys that may do everything, several for the time of a rotation. White space around them does not
	// count, and empty ones are passed over, so that a variable that is not set opens nothing. Without any key, here or in
	// Keys, every request is denied.
	APIKeys []aside.Secret

	// Keys are bearer keys with a name and a scope each.
	Keys []Key

	// Rate is how many requests a second each key may make on average, from wherever, and Burst how many at once. Requests
	// without a valid key count for the client that they come from, which may make as many of them: an IPv4 address, or an IPv6 network of
	// 64 bits. What exceeds that gets 429. The key is looked at first, so that no outsider uses up what a key may ask. Up to 4,096
	// clients are told apart; the others are counted by their networks, of 8 bits in IPv4 and of 16 in IPv6. All handlers of one cache
	// count together: what one of them was asked counts for the others, each of which allows as much as its own options say. Defaults: 10
	// and 50. A negative Rate: no limit. Handlers of one cache with the same Rate and Burst share what a client may ask.
	Rate  float64
	Burst int

	// TrustedProxies are the addresses of the proxies before this server. Of a request from one of them the client is the last
	// address in X-Forwarded-For that is not itself such a proxy. From anyone else, and so by default from everyone, that header
	// is not heard. An IPv4 network that is written as one of IPv6, such as ::ffff:10.0.0.0/104, is taken as 10.0.0.0/8.
	TrustedProxies []netip.Prefix

	// Logger gets a line at level Info for each invalidation: the name of the key, the client, what was invalidated and how it
	// went. Of a key that sends more than one a second, and more than ten at once, what comes beyond that is summed up in one line a second.
	// It gets lines at level Warn, at most every ten seconds, with how many requests they stand for, about requests that their key's scopes
	// do not allow, or for which there is no room, of each key, and about those without a valid key, whichever handlers of the cache are
	// asked; and what Validate finds. Default: slog.Default().
	Logger *slog.Logger
}

// A Key is a bearer key, sent as Authorization: Bearer SECRET.
type Key struct {
	// Name stands for the key in the log. Default: a fingerprint, the first 8 hex digits of its SHA-256.
	Name string

	// Secret is the key itself: a long random text, such as openssl rand -hex 32 prints, that cannot be guessed. It has 16 to 1,024
	// bytes; what is shorter is refused, since nothing slows down those who guess. White space around it does not count. A key with neither Secret nor SHA256 is passed over.
	Secret aside.Secret

	// SHA256 is the key's SHA-256 in hex, in place of Secret, for a configuration that is not to hold what opens the handler:
	// printf %s "$KEY" | sha256sum. How long the key is cannot be seen from it: of a short one, the hash alone is enough to find it.
	SHA256 string

	// Scopes are what the key may do. One at least.
	Scopes []Scope
}

// A Scope is something that a key may do.
type Scope string

// The scopes of a Key.
const (
	ScopeRead       Scope = "read"       // see metrics and list keys
	ScopeInvalidate Scope = "invalidate" // invalidate by category, pattern, keys and tags; not all at once. A dry run needs ScopeRead too
	ScopeAll        Scope = "all"        // both, and invalidate everything
)

// Validate tells all that is wrong with the options, and nothing secret. Handler and Metrics have no error to return: they log it
// and go on without the key, the proxy or the limit that is wrong, which denies requests and allows none. A program that
// would rather not start calls Validate first.
func (o Options) Validate() error {
	_, err := o.keyring()
	_, limitErr := o.limiter()
	return errors.Join(err, limitErr)
}

// Format writes no key, whatever the verb.
func (o Options) Format(f fmt.State, _ rune) {
	keys, _ := o.keyring()
	fmt.Fprintf(f, "asidehttp.Options{%d keys}", len(keys.list))
}

// LogValue is Format for slog's handlers.
func (o Options) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(o)) }

// MarshalText is Format for encoding/json, by which slog's JSONHandler writes a struct that the options are a field of.
func (o Options) MarshalText() ([]byte, error) { return fmt.Append(nil, o), nil }

// Format writes name and scopes, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "asidehttp.Key{%q %q}", k.Name, k.Scopes)
}

// LogValue is Format for slog's handlers.
func (k Key) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(k)) }

// MarshalText is Format for encoding/json.
func (k Key) MarshalText() ([]byte, error) { return fmt.Append(nil, k), nil }

func (o Options) logger() *slog.Logger {
	if o.Logger == nil {
		return logs.Readable(slog.Default())
	}
	return logs.Readable(o.Logger)
}

const (
	minKey = 16   // bytes that nobody can try out; nothing slows down those who try, so that nobody can lock out others either
	maxKey = 1024 // bounds what is hashed for a request that nobody has vouched for yet
)

// keyring returns the keys that are right, and what is wrong with the others.
func (o Options) keyring() (*keyring, error) {
	ring := newKeyring()
	var errs []error
	for i, secret := range o.APIKeys {
		if err := ring.add(Key{Secret: secret, Scopes: []Scope{ScopeAll}}); err != nil {
			errs = append(errs, fmt.Errorf("asidehttp: Options.APIKeys[%d] %w", i, err))
		}
	}
	for i, key := range o.Keys {
		if err := ring.add(key); err != nil {
			errs = append(errs, fmt.Errorf("asidehttp: Options.Keys[%d] %w", i, err))
		}
	}
	return ring, errors.Join(errs...)
}

func (r *keyring) add(key Key) error {
	secret, digest := strings.TrimSpace(key.Secret.Reveal()), strings.TrimSpace(key.SHA256) // what was read from a file often ends with a newline
	if secret == "" && digest == "" {
		return nil
	}
	var sum [sha256.Size]byte
	switch {
	case secret != "" && digest != "":
		return errors.New("has a Secret and a SHA256: keep one")
	case secret != "" && len(secret) < minKey:
		return fmt.Errorf("has %d bytes, and could be guessed: use at least %d, such as openssl rand -hex 32 prints", len(secret), minKey)
	case len(secret) > maxKey:
		return fmt.Errorf("is longer than %d bytes", maxKey)
	case secret != "":
		sum = sha256.Sum256([]byte(secret))
	default:
		if n, err := hex.Decode(sum[:], []byte(digest[:min(len(digest), 2*sha256.Size)])); err != nil || n != sha256.Size || len(digest) != 2*sha256.Size {
			return errors.New("has a SHA256 that is not 64 hex digits: write what sha256sum prints of the key")
		}
	}
	var may scopes
	for _, s := range key.Scopes {
		bits, ok := scopeBits[s]
		if !ok {
			return fmt.Errorf("has an unknown scope %q: the scopes are %q, %q and %q", s, ScopeRead, ScopeInvalidate, ScopeAll)
		}
		may |= bits
	}
	if may == 0 {
		return fmt.Errorf("has no scope: give it %q, %q or %q", ScopeRead, ScopeInvalidate, ScopeAll)
	}
	name := key.Name
	if name == "" {
		name = "sha256:" + hex.EncodeToString(sum[:4])
	}
	r.list = append(r.list, credential{sum: sum, name: name, may: may})
	return nil
}

// limiter returns the limit on clients, the default one where it is wrong.
func (o Options) limiter() (*limiter, error) {
	const rate, burst = 10, 50
	var errs []error
	l := &limiter{rate: o.Rate, burst: float64(o.Burst), buckets: newBuckets()}
	if l.rate != l.rate || l.rate > 1e9 {
		errs = append(errs, fmt.Errorf("asidehttp: Options.Rate is %v: set requests a second, 0 for the default, or a negative number for no limit", o.Rate))
		l.rate = 0
	}
	if o.Burst < 0 {
		errs = append(errs, fmt.Errorf("asidehttp: Options.Burst is %d: set a positive number, or 0 for the default", o.Burst))
		l.burst = 0
	}
	if l.rate == 0 {
		l.rate = rate
	}
	if l.burst == 0 {
		l.burst = burst
	}
	l.proxies = nil
	for _, p := range o.TrustedProxies {
		network, bad := proxyNetwork(p)
		if bad != "" {
			errs = append(errs, errors.New("asidehttp: Options.TrustedProxies holds "+bad))
			continue
		}
		l.proxies = append(l.proxies, network)
	}
	return l, errors.Join(errs...)
}

// proxyNetwork returns a network as addresses are compared with it, which are IPv4 where IPv6 holds an IPv4 address, or what is wrong with it.
func proxyNetwork(p netip.Prefix) (network netip.Prefix, bad string) {
	const bits = 96 // before an IPv4 address in IPv6
	switch addr := p.Addr(); {
	case !p.IsValid():
		return p, "the zero Prefix: make them with netip.ParsePrefix"
	case addr.Is4In6() && p.Bits() < bits:
		return p, fmt.Sprintf("%v, which is more than the addresses of IPv4: write the network as IPv4, such as 10.0.0.0/8", p)
	case addr.Is4In6():
		return netip.PrefixFrom(addr.Unmap(), p.Bits()-bits), ""
	}
	return p, ""
}
