package aside

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/redisstore"
)

// OptionsFromEnv reads the address of Redis from the environment:
//
//	REDIS_URL        redis://user:password@host:port/db, or rediss:// for TLS;
//	                 valkey:// and valkeys:// mean the same;
//	                 unix://user:password@/path/to/the.sock?db=0 for a socket of this machine
//	REDIS_HOST       localhost
//	REDIS_PORT       6379
//	REDIS_USERNAME
//	REDIS_PASSWORD
//	REDIS_DB         0
//	REDIS_TLS        false
//
// If none of them is set, the cache is in memory alone. If any is set, the cache uses Redis, with the defaults above for the others. REDIS_URL
// excludes the others; spaces and newlines around it are ignored. An empty variable counts as not set. A malformed variable is an error that
// names the variable and what to write, and not its value. User name and password are in Redis.AuthCredentialsFn, which is not printed; with a
// Sentinel (master_set in the URL) they are in Username and Password.
func OptionsFromEnv() (Options, error) {
	url := strings.TrimSpace(os.Getenv("REDIS_URL")) // a file that it was read from may end in a newline
	parts := map[string]string{}
	for _, name := range []string{"REDIS_HOST", "REDIS_PORT", "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_DB", "REDIS_TLS"} {
		if v := os.Getenv(name); v != "" {
			parts[name] = v
		}
	}
	var (
		client rueidis.ClientOption
		err    error
	)
	switch {
	case url == "" && len(parts) == 0:
		return Options{}, nil
	case url == "":
		client, err = clientFromParts(parts)
	case len(parts) > 0:
		err = invalidOption("REDIS_URL and %s are both set: set the URL or the others", strings.Join(slices.Sorted(maps.Keys(parts)), ", "))
	default:
		client, err = clientFromURL(url)
	}
	if err != nil {
		return Options{}, err
	}
	return Options{Redis: hidden(client)}, nil
}

func clientFromParts(parts map[string]string) (rueidis.ClientOption, error) {
	var (
		host     = cmp.Or(parts["REDIS_HOST"], "localhost")
		port     = cmp.Or(parts["REDIS_PORT"], "6379")
		db       = cmp.Or(parts["REDIS_DB"], "0")
		withTLS  = cmp.Or(parts["REDIS_TLS"], "false")
		opt      = rueidis.ClientOption{Username: parts["REDIS_USERNAME"], Password: parts["REDIS_PASSWORD"]}
		errs     []error
		badValue = func(name, want string) { errs = append(errs, invalidOption("%s is malformed: write %s", name, want)) }
	)
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") && strings.Contains(inner, ":") {
		host = strings.TrimSuffix(inner, "]") // an IPv6 address as it stands in URLs
	}
	if !isHost(host) {
		badValue("REDIS_HOST", "a host name or an address, without a scheme or a port (REDIS_PORT, or REDIS_URL for all in one)")
	}
	if !isPort(port) {
		badValue("REDIS_PORT", "a number from 1 to 65535")
	}
	n, err := strconv.ParseUint(db, 10, 31)
	if err != nil {
		badValue("REDIS_DB", "a number from 0 up")
	}
	useTLS, err := strconv.ParseBool(withTLS)
	if err != nil {
		badValue("REDIS_TLS", "true or false")
	}
	opt.SelectDB = int(n)
	opt.InitAddress = []string{net.JoinHostPort(host, port)}
	if useTLS {
		opt.TLSConfig = &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	}
	return opt, errors.Join(errs...)
}

const urlForm = "REDIS_URL is malformed: write redis://user:password@host:port/db, or rediss:// for TLS"

// malformedURL does not show the URL, since the password is in it.
func malformedURL(why string) (rueidis.ClientOption, error) {
	return rueidis.ClientOption{}, invalidOption("%s (%s)", urlForm, why)
}

const unescaped = "the user name or the password has a character with a meaning in URLs: percent-escape it, for example " +
	"# as %23, / as %2F, ? as %3F, @ as %40, : as %3A, [ as %5B, % as %25; or set REDIS_HOST and REDIS_PASSWORD instead, which take it as it is"

// misread reports whether a URL parser would read a part of the user name or of the password as something else: to a parser, the credentials end
// at the first of / ? #. It would find another host without an error, or report an invalid port. An @ may also be in a parameter, or in the
// name of a socket.
func misread(text string) bool {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		return false
	}
	credentials, _, found := cutLast(rest, "@")
	return found && strings.ContainsAny(credentials, "/?#") && !isPlain(scheme, rest)
}

// isPlain reports whether the text after the scheme is valid as a parser reads it, with an @ after the / or ?: server and path are valid, and the
// query has only parameters that the client library knows.
func isPlain(scheme, rest string) bool {
	before, query, _ := strings.Cut(rest, "?")
	parameters, err := url.ParseQuery(query)
	if err != nil || strings.Contains(rest, "#") {
		return false
	}
	for name := range parameters {
		if !slices.Contains(urlParameters, name) {
			return false
		}
	}
	server, path, _ := strings.Cut(before, "/")
	if _, host, found := cutLast(server, "@"); found {
		server = host
	}
	if scheme == "unix" {
		return server == "" && !strings.Contains(path, "@/")
	}
	_, err = strconv.ParseUint(path, 10, 31)
	return (path == "" || err == nil) && (isHost(strings.Trim(server, "[]")) || isHostPort(server))
}

// urlParameters are those that the client library knows.
var urlParameters = []string{"addr", "client_cache", "client_name", "db", "dial_timeout", "master_set", "max_retries", "protocol", "skip_verify", "write_timeout"}

// isUnescaped reports whether the credentials of a URL contain a character that must be escaped. It explains an error of the parser.
func isUnescaped(text string) bool {
	_, rest, _ := strings.Cut(text, "://")
	credentials, _, found := cutLast(rest, "@")
	if !found {
		return false
	}
	_, err := url.PathUnescape(credentials)
	return err != nil || strings.ContainsFunc(credentials, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`/?#[]@\^"<>{}|`+"`", r)
	})
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func clientFromURL(text string) (rueidis.ClientOption, error) {
	if misread(text) {
		return malformedURL(unescaped)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil && isUnescaped(text):
		return malformedURL(unescaped)
	case err != nil:
		return malformedURL("it cannot be parsed") // the parser's error would quote the URL
	case !slices.Contains([]string{"redis", "rediss", "valkey", "valkeys", "unix"}, u.Scheme):
		return malformedURL("its scheme is not redis, rediss, valkey, valkeys or unix")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" {
		return malformedURL("percent-escape special characters")
	}
	if query.Has("skip_verify") {
		return rueidis.ClientOption{}, invalidOption("REDIS_URL has skip_verify: without a check of its certificate the server can be anyone; set Options.Redis.TLSConfig in code if that is intended")
	}
	if u.Scheme == "unix" {
		if u.Host != "" || len(u.Path) < 2 || query.Has("addr") {
			return malformedURL("for a socket write unix:///path/to/the.sock, with ?db=1 for a database")
		}
	} else {
		switch {
		case !isHost(u.Hostname()) || u.Port() != "" && !isPort(u.Port()):
			return malformedURL("its host or its port is invalid")
		case u.Path == "/":
			u.Path = ""
		case u.Path != "" && query.Has("db"):
			return malformedURL("it names the database twice")
		}
		if slices.ContainsFunc(query["addr"], func(addr string) bool { return !isHostPort(addr) }) {
			return malformedURL("each addr is host:port")
		}
	}
	opt, err := rueidis.ParseURL(u.String())
	if err != nil || opt.SelectDB < 0 {
		return malformedURL("the database, or a parameter after the question mark, is invalid")
	}
	return opt, nil
}

// A Secret is a text that is not printed: a password, a key, a token, or a URL that contains one. It is kept in a function, so that neither fmt
// nor reflection shows it, even in an unexported field, where fmt does not call its methods. The zero Secret is an empty text.
type Secret struct {
	reveal func() string // the text is in the closure, not in a field
}

// NewSecret makes a Secret of a text, or of bytes, which it copies. An empty text makes the zero Secret.
func NewSecret[T ~string | ~[]byte](value T) Secret {
	if len(value) == 0 {
		return Secret{}
	}
	text := string(value)
	return Secret{func() string { return text }}
}

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// String returns "[secret]", or "" for the zero Secret.
func (s Secret) String() string {
	if s.reveal == nil {
		return ""
	}
	return "[secret]"
}

// Format is String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue is String for slog's handlers.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String for encoding/json.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Credentials returns a function for rueidis.ClientOption.AuthCredentialsFn, with a user name, which may be empty, and a password. Unlike the
// field Password, it shows no password where the options are printed as part of an unexported field. With Sentinels, rueidis uses the
// credentials for the Sentinels too.
func Credentials(user string, password Secret) func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
	return func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
		return rueidis.AuthCredentials{Username: user, Password: password.Reveal()}, nil
	}
}

// withoutCredentials returns the options as a cache keeps them. fmt prints the fields of a cache in an unexported field without calling its
// Format, for a verb such as %s that does not fit a pointer.
func withoutCredentials(o Options) Options {
	o.Redis.Username, o.Redis.Password = "", ""
	o.Redis.Sentinel.Username, o.Redis.Sentinel.Password = "", ""
	return o
}

// hidden moves the credentials to where they are not printed. Not with Sentinels, to which rueidis would send them too.
func hidden(r rueidis.ClientOption) rueidis.ClientOption {
	if r.Sentinel.MasterSet == "" && (r.Username != "" || r.Password != "") {
		r.AuthCredentialsFn = Credentials(r.Username, NewSecret(r.Password))
		r.Username, r.Password = "", ""
	}
	return r
}

// checkRedis refuses options that New cannot carry out, or that would break a guarantee.
func checkRedis(r rueidis.ClientOption) (errs []error) {
	refuse := func(set bool, field, why string) {
		if set {
			errs = append(errs, invalidOption("Options.Redis.%s: %s", field, why))
		}
	}
	const (
		replicas = "replicas lag behind, so an invalidated value could be read there: leave it unset"
		tracking = "the cache does its own client-side caching: leave it unset"
	)
	refuse(r.ReplicaOnly, "ReplicaOnly", replicas)
	refuse(r.SendToReplicas != nil, "SendToReplicas", replicas)
	//lint:ignore SA1019 deprecated, and refused as long as it works
	refuse(r.ReplicaSelector != nil, "ReplicaSelector", replicas)
	refuse(r.ReadNodeSelector != nil, "ReadNodeSelector", replicas)
	refuse(len(r.Standalone.ReplicaAddress) > 0, "Standalone.ReplicaAddress", replicas)
	refuse(r.NewCacheStoreFn != nil, "NewCacheStoreFn", tracking)
	refuse(r.ClientTrackingOptions != nil, "ClientTrackingOptions", tracking)
	refuse(r.OnInvalidations != nil, "OnInvalidations", tracking)
	refuse(r.DisableCache, "DisableCache", tracking+" (a server without tracking is noticed)")
	refuse(r.ClientNoTouch, "ClientNoTouch", "a server that is full would evict first what is read most: leave it unset")
	refuse(r.Standalone.EnableRedirect, "Standalone.EnableRedirect", "the cache would not know which server it reads: leave it unset, and name a Sentinel or a cluster")
	refuse(r.PipelineMultiplex > rueidis.MaxPipelineMultiplex, "PipelineMultiplex", fmt.Sprintf("at most %d", rueidis.MaxPipelineMultiplex))
	// With these, rueidis opens further connections when a command is sent, and the sender waits.
	const dials = "a caller would wait for a connection to be made: leave it unset"
	refuse(r.DisableAutoPipelining, "DisableAutoPipelining", dials)
	refuse(r.BlockingPipeline != 0, "BlockingPipeline", dials)
	refuse(r.SelectDB < 0, "SelectDB", "a database has a number from 0 up")
	refuse(r.ConnWriteTimeout < 0, "ConnWriteTimeout", "set a positive duration, or 0 for the default")
	silence := redisstore.Silence(r)
	refuse(silence < 0 || silence > longestSilence, "Dialer.KeepAlive",
		"a server that hangs must be noticed within 3s: let twice KeepAlive (default 500ms) and ConnWriteTimeout (default 500ms) not come to more")
	refuse(r.Dialer.Timeout < 0, "Dialer.Timeout", "set a positive duration, or 0 for the default")
	const forEver = "no connection would be made after that time: leave it unset"
	refuse(!r.Dialer.Deadline.IsZero(), "Dialer.Deadline", forEver)
	refuse(!r.Sentinel.Dialer.Deadline.IsZero(), "Sentinel.Dialer.Deadline", forEver)
	refuse(r.ConnLifetime != 0 && r.ConnLifetime < time.Second, "ConnLifetime",
		"set at least 1s, or 0 for no end")
	refuse(r.MaxFlushDelay < 0 || r.MaxFlushDelay > mostFlushDelay, "MaxFlushDelay", "every command would wait for so long: set at most "+mostFlushDelay.String())
	refuse(r.RingScaleEachConn > mostRingScale, "RingScaleEachConn", fmt.Sprintf("each connection takes memory for as many commands as 2 to the power of it: set at most %d", mostRingScale))
	refuse(r.ReadBufferEachConn > mostBuffer, "ReadBufferEachConn", fmt.Sprintf("set at most %d bytes", mostBuffer))
	refuse(r.WriteBufferEachConn > mostBuffer, "WriteBufferEachConn", fmt.Sprintf("set at most %d bytes", mostBuffer))
	const names = "Redis takes names of printable ASCII characters without spaces"
	refuse(!isClientName(r.ClientName), "ClientName", names)
	refuse(!isClientName(r.Sentinel.ClientName), "Sentinel.ClientName", names)
	refuse(r.ClusterOption.ShardsRefreshInterval < 0, "ClusterOption.ShardsRefreshInterval", "set a positive duration, or 0 for none")
	refuse(r.Sentinel.TopologyRefreshInterval < 0, "Sentinel.TopologyRefreshInterval", "set a positive duration, or 0 for none")
	// A dialer of the program's may give addresses another meaning. The address is not shown: it may be a whole URL with a password.
	ownDialer := r.DialCtxFn != nil || r.DialFn != nil
	refuse(slices.ContainsFunc(r.InitAddress, func(addr string) bool { return addr == "" || !ownDialer && !isHostPort(addr) }),
		"InitAddress", "it holds an address that is not of the form host:port (OptionsFromEnv and rueidis.ParseURL take URLs)")
	if len(r.InitAddress) == 0 {
		// Options with a password or a database are meant for a server, and must not silently make a cache in memory.
		set := r.Username != "" || r.Password != "" || r.SelectDB != 0 || r.TLSConfig != nil || r.Sentinel.MasterSet != "" ||
			r.DialCtxFn != nil || r.AuthCredentialsFn != nil || r.ClientName != ""
		refuse(set, "InitAddress", "it is empty although other fields of Redis are set: name the server as host:port, or leave all of Redis unset for memory alone")
	}
	return errs
}

const (
	mostFlushDelay = 5 * time.Millisecond
	mostRingScale  = 16
	mostBuffer     = 64 << 20
)

func isClientName(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < '!' || r > '~' })
}

// isHostPort reports whether a server can be dialled under addr.
func isHostPort(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	return err == nil && (host == "" || isHost(host)) && isPort(port)
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// isHost reports whether text can be a host's name or its IP address, the latter without brackets.
func isHost(text string) bool {
	if strings.Contains(text, ":") {
		_, err := netip.ParseAddr(text)
		return err == nil
	}
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return strings.ContainsRune(`/\@?#[]%"<>`, r) || unicode.IsSpace(r) || unicode.IsControl(r)
	})
}
