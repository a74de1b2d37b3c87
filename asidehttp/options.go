package asidehttp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/logs"
)

// Options configures AdminHandler, Metrics and Dashboard.
type Options struct {
	// APIKeys are bearer keys with all scopes. Set several during a rotation. White space around a key is ignored. Empty keys are
	// skipped, so that a variable that is not set grants no access. Without any key, here or in Keys, every request is denied.
	APIKeys []aside.Secret

	// Keys are bearer keys with names and scopes.
	Keys []Key

	// Rate is how many requests a second each key may make on average, and Burst how many at once. Requests without a valid key are limited
	// in the same way for each client: an IPv4 address, or an IPv6 network of 64 bits. Requests over the limit get 429. The key is
	// checked first, so that clients without a key use up nothing of a key's allowance. Up to 4,096 clients have a limit each. Further clients
	// share the limit of their network, of 8 bits in IPv4 and of 16 in IPv6. Handlers of one cache with the same Rate and Burst share their
	// counts. Defaults: 10 and 50. A negative Rate: no limit.
	Rate  float64
	Burst int

	// TrustedProxies are the addresses of the proxies in front of this server. For a request from one of them, the client is the last
	// address in X-Forwarded-For that is not a trusted proxy. For other requests, and so by default for all, that header
	// is ignored. An IPv4 network in IPv6 form, such as ::ffff:10.0.0.0/104, is read as 10.0.0.0/8.
	TrustedProxies []netip.Prefix

	// Warmers are functions that fill the cache, by the names under which AdminHandler starts them: see aside.Warm. A function runs in a
	// goroutine of its own, one run of a name at a time for all handlers of the cache. Its context ends when the cache is closed. A panic ends
	// the run with an error, and is logged. Names have at most 1,024 bytes.
	Warmers map[string]func(context.Context) (aside.Warmed, error)

	// Logger gets a line at level Info for each invalidation: the name of the key, the client, what was invalidated, and the result. For a key
	// that sends more than one a second, and more than ten at once, the others are summed up in one line a second. It gets lines at
	// level Warn about requests without a valid key, about requests whose key lacks a scope, and about invalidations that are refused because
	// too many are pending: each at most every ten seconds, the last two for each key, and with the number of requests. It gets a line for each
	// order to warm or to bypass the cache, and one about the end of a warmer's run, at most every ten seconds for each warmer. It gets the errors of Validate.
	// Default: slog.Default().
	Logger *slog.Logger
}

// A Key is a bearer key, sent as Authorization: Bearer SECRET.
type Key struct {
	// Name is the key's name in the log. Default: a fingerprint, the first 8 hex digits of its SHA-256.
	Name string

	// Secret is the key itself: a long random text, as openssl rand -hex 32 prints. It has 16 to 1,024 bytes. A shorter key is refused, since
	// guesses are not slowed down. White space around it is ignored. A key with neither Secret nor SHA256 is skipped.
	Secret aside.Secret

	// SHA256 is the key's SHA-256 in hex, instead of Secret, for a configuration that must not contain the key:
	// printf %s "$KEY" | sha256sum. Use a long key: a short one can be found from its hash, and its length cannot be checked here.
	SHA256 string

	// Scopes are the permissions of the key. At least one is required.
	Scopes []Scope
}

// A Scope is a permission of a key.
type Scope string

// The scopes of a Key.
const (
	ScopeRead       Scope = "read"       // read metrics and list keys
	ScopeInvalidate Scope = "invalidate" // invalidate by category, pattern, keys and tags, but not everything. A dry run needs ScopeRead too
	ScopeWarm       Scope = "warm"       // start the functions of Options.Warmers, and see how they went
	ScopeValues     Scope = "values"     // see cached values and the errors of loaders on a Dashboard, beside ScopeRead
	ScopeAll        Scope = "all"        // all of these, invalidate everything, and have calls bypass the cache
)

// Validate returns an error for each invalid option. The error shows no secret. AdminHandler and Metrics return no error: they log it, and ignore
// an invalid key, proxy, limit or warmer, so that it grants no access. Call Validate to refuse to start instead.
func (o Options) Validate() error {
	_, err := o.keyring()
	_, limitErr := o.limiter()
	_, warmErr := o.warmers()
	return errors.Join(err, limitErr, warmErr)
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
	minKey = 16   // bytes, so that the key cannot be guessed. Guesses are not slowed down: an attacker could lock out others
	maxKey = 1024 // bytes, which bounds the hashing for a request without a valid key
)

// keyring returns the valid keys, and the errors of the others.
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

// add adds a key, unless it is invalid or empty.
func (r *keyring) add(key Key) error {
	secret, digest := strings.TrimSpace(key.Secret.Reveal()), strings.TrimSpace(key.SHA256) // a text from a file often ends with a newline
	if secret == "" && digest == "" {
		return nil
	}
	var sum [sha256.Size]byte
	switch {
	case secret != "" && digest != "":
		return errors.New("has a Secret and a SHA256: keep one")
	case secret != "" && len(secret) < minKey:
		return fmt.Errorf("has %d bytes, and could be guessed: use at least %d, as openssl rand -hex 32 prints", len(secret), minKey)
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
			return fmt.Errorf("has an unknown scope %q: the scopes are %q, %q, %q, %q and %q", s, ScopeRead, ScopeInvalidate, ScopeWarm, ScopeValues, ScopeAll)
		}
		may |= bits
	}
	if may == 0 {
		return fmt.Errorf("has no scope: give it %q, %q, %q, %q or %q", ScopeRead, ScopeInvalidate, ScopeWarm, ScopeValues, ScopeAll)
	}
	name := key.Name
	if name == "" {
		name = "sha256:" + hex.EncodeToString(sum[:4])
	}
	r.list = append(r.list, credential{sum: sum, name: name, may: may})
	return nil
}

// warmers returns the valid warmers, and the errors of the others.
func (o Options) warmers() (warmers, error) {
	all := make(warmers, len(o.Warmers))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(o.Warmers)) {
		switch {
		case name == "":
			errs = append(errs, errors.New("asidehttp: Options.Warmers has an empty name: give the warmer a name"))
		case len(name) > maxName || !utf8.ValidString(name):
			errs = append(errs, fmt.Errorf("asidehttp: Options.Warmers has the name %s: use UTF-8, at most %d bytes", quote(name), maxName))
		case o.Warmers[name] == nil:
			errs = append(errs, fmt.Errorf("asidehttp: Options.Warmers[%s] is nil: give it a function", quote(name)))
		default:
			all[name] = o.Warmers[name]
		}
	}
	return all, errors.Join(errs...)
}

// limiter returns the limiter of the options, with defaults for invalid ones, and an error for each of these.
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
			errs = append(errs, errors.New("asidehttp: Options.TrustedProxies has "+bad))
			continue
		}
		l.proxies = append(l.proxies, network)
	}
	return l, errors.Join(errs...)
}

// proxyNetwork returns a network in the form that client addresses have: an IPv4 network in IPv6 form becomes an IPv4 network. If the network is
// invalid, bad says why.
func proxyNetwork(p netip.Prefix) (network netip.Prefix, bad string) {
	const bits = 96 // before an IPv4 address in IPv6
	switch addr := p.Addr(); {
	case !p.IsValid():
		return p, "the zero Prefix: make them with netip.ParsePrefix"
	case addr.Is4In6() && p.Bits() < bits:
		return p, fmt.Sprintf("%v, which includes more than IPv4 addresses: write the network as IPv4, such as 10.0.0.0/8", p)
	case addr.Is4In6():
		return netip.PrefixFrom(addr.Unmap(), p.Bits()-bits), ""
	}
	return p, ""
}
