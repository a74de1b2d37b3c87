package aside

import (
	"cmp"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// OptionsFromEnv reads where Redis is from the environment:
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
// With none of them set the cache is in memory alone. With any of them set it is on Redis, with the defaults above for the
// others. REDIS_URL stands alone; spaces and newlines around it do not count. An empty variable counts as not set. A malformed one is
// an error that names the variable and what to write, never its value. User name and password are in Redis.AuthCredentialsFn, where
// nothing prints them; with a Sentinel (master_set in the URL) in Username and Password.
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
		err = invalidOption("REDIS_URL and %s are both set: keep the URL alone, or the others", strings.Join(slices.Sorted(maps.Keys(parts)), ", "))
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

// malformedURL never shows the URL: it has the password in it.
func malformedURL(why string) (rueidis.ClientOption, error) {
	return rueidis.ClientOption{}, invalidOption("%s (%s)", urlForm, why)
}

const unescaped = "the user name or the password holds a character that has a meaning in URLs: percent-escape it, for example " +
	"# as %23, / as %2F, ? as %3F, @ as %40, : as %3A, [ as %5B, % as %25; or set REDIS_HOST and REDIS_PASSWORD instead, which take it as it is"

// misread reports whether a part of the user name or of the password would be taken for something else: what is before the last @ ends
// at the first of / ? #. A parser would find another host without a word, or complain of a port. An @ may be in a parameter, or in the
// name of a socket.
func misread(text string) bool {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		return false
	}
	credentials, _, found := cutLast(rest, "@")
	return found && strings.ContainsAny(credentials, "/?#") && !isPlain(scheme, rest)
}

// isPlain reports whether what follows the scheme is right as a parser reads it, with an @ behind the / or ?: up to the query there is what
// may be there, and the query has no other names than those that the client library knows.
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

// isUnescaped reports whether it holds what may not stand there, though a parser finds that too.
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
		return malformedURL("it cannot be parsed") // the cause would repeat it
	case !slices.Contains([]string{"redis", "rediss", "valkey", "valkeys", "unix"}, u.Scheme):
		return malformedURL("its scheme is not redis, rediss, valkey, valkeys or unix")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" {
		return malformedURL("percent-escape what is special in it")
	}
	if query.Has("skip_verify") {
		return rueidis.ClientOption{}, invalidOption("REDIS_URL asks for skip_verify: a server whose certificate is not checked can be anyone; set Options.Redis.TLSConfig in code where that is really meant")
	}
	if u.Scheme == "unix" {
		if u.Host != "" || len(u.Path) < 2 || query.Has("addr") {
			return malformedURL("that of a socket is unix:///path/to/the.sock, with ?db=1 for a database")
		}
	} else {
		switch {
		case !isHost(u.Hostname()) || u.Port() != "" && !isPort(u.Port()):
			return malformedURL("its host or its port is not right")
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
		return malformedURL("the database, or a parameter after the question mark, is not right")
	}
	return opt, nil
}
