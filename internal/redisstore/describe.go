package redisstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/redis/rueidis"
)

// codes are the error codes of servers, apart from ERR, which rueidis cuts off: the first word of a text is a code only if it is
// listed here.
var codes = []string{
	"ASK", "BUSY", "BUSYGROUP", "BUSYKEY", "CLUSTERDOWN", "CROSSSLOT", "DENIED", "EXECABORT", "INPROG", "INVALIDOBJ", "IOERR", "LOADING",
	"MASTERDOWN", "MISCONF", "MOVED", "NOAUTH", "NOCHUNK", "NOGOODSLAVE", "NOGROUP", "NOMASTERLINK", "NOPERM", "NOPROTO", "NOQUORUM",
	"NOREPLICAS", "NOSCRIPT", "NOTBUSY", "OOM", "READONLY", "TRYAGAIN", "UNBLOCKED", "UNKILLABLE", "WRONGPASS", "WRONGTYPE",
}

// code is the code of a server's own error; "" for any other error.
func code(err error) string {
	text := serverMessage(err)
	if text == "" {
		return ""
	}
	first, _, _ := strings.Cut(text, " ")
	first = strings.TrimSuffix(first, ":")
	switch {
	case strings.Contains(text, "user executing the script") || strings.Contains(text, "ACL failure in script"):
		return "NOPERM" // errors of scripts leave the code out
	case !slices.Contains(codes, first):
		return "ERR"
	}
	return first
}

// serverMessage is the text of a server's own error. It may quote what was sent, a password too, so it is shown only after quote.
func serverMessage(err error) string {
	if err == nil {
		return "" // what follows takes memory
	}
	var r *refusal
	if errors.As(err, &r) {
		err = r.err
	}
	var said *closeReason
	if errors.As(err, &said) {
		return strings.TrimPrefix(said.line, "ERR ")
	}
	if e, ok := rueidis.IsRedisErr(bareError(err)); ok && !e.IsNil() {
		return e.Error()
	}
	return ""
}

// explained are errors of servers whose text says more than the code, by the beginning of the text, and what to do.
var explained = []struct{ words, advice string }{
	{"max number of clients reached", "it takes no more connections: raise maxclients there, or find out who holds so many"},
	{"max number of clients + cluster connections reached", "it takes no more connections: raise maxclients there, or find out who holds so many"},
	{"max requests limit exceeded", "the service's limit of commands is used up"},
	{"max daily request limit exceeded", "the service's limit of commands is used up"},
	{"DB index is out of range", "it has fewer databases than the number that it was asked for"},
	{"SELECT is not allowed in cluster mode", "a cluster has database 0 alone"},
	{"No such master with that name", "the Sentinels watch no primary of that name (Sentinel.MasterSet)"},
	{"Protocol error", "something on the way speaks another protocol: check the port"},
	{"unknown command 'SENTINEL'", "it is no Sentinel: leave Sentinel.MasterSet unset, or name the port of one (mostly 26379)"},
	{"unknown command 'TIME'", "it is a Sentinel (set Sentinel.MasterSet), or the command is renamed or switched off"},
	{"unknown command 'SELECT'", "it is a Sentinel (set Sentinel.MasterSet), or the command is renamed or switched off"},
	{"unknown command", "the command is renamed or switched off, or it is another kind of server: docs/redis.md lists what is needed"},
	{"AUTH <password> called without any password configured", "it has no password: leave Password unset"},
	{"Client sent AUTH, but no password is set", "it has no password: leave Password unset"},
}

// Describe says in a few words what went wrong with Redis and, where that is known, what to do. Health shows it to everybody who
// asks, so it names no host and no user. Of a server's own error it gives the code, and only known texts: others may quote what
// was sent, or name its sender. Those are for the log: see Detail.
func Describe(err error) string {
	var told *connectError
	if errors.As(err, &told) {
		return told.reason
	}
	var r *refusal
	if errors.As(err, &r) {
		return r.describe(code(err))
	}
	if c := code(err); c != "" {
		return describeAnswer(c, serverMessage(err))
	}
	return describeFailure(err)
}

// advice says what to do about an error by its code alone; "" where the code says too little.
func advice(code string) string {
	switch code {
	case "NOPROTO":
		return "it does not speak RESP3: set Options.Redis.AlwaysRESP2 (protocol=2 in REDIS_URL), and do without client tracking"
	case "NOAUTH":
		return "it asks for a password: set Username and Password"
	case "WRONGPASS":
		return "check the user name and the password"
	case "NOPERM":
		return "its user lacks a permission that docs/redis.md lists"
	case "READONLY":
		return "it is a replica"
	case "LOADING":
		return "it is starting, and reads its data"
	case "MASTERDOWN":
		return "it is a replica that has lost its primary"
	case "CLUSTERDOWN":
		return "the cluster lacks a node for some slots, or this node cannot reach the others"
	case "BUSY":
		return "a script or a function keeps it busy"
	case "MISCONF":
		return "it takes no writes, removals included, since it cannot save; its log says why"
	case "NOREPLICAS":
		return "it takes no writes, removals included, while it has too few replicas (min-replicas-to-write)"
	case "OOM":
		return "it has no memory left, and evicts nothing: raise maxmemory, or choose another maxmemory-policy"
	case "DENIED":
		return "it takes connections of its own host alone (protected mode): give it a password, or bind it to an address"
	}
	return ""
}

// unpermitted finds the command that a user may not run, if it is one that this package sends: a server can put any text there.
var unpermitted = regexp.MustCompile(`permissions to run the '((?i:asking|client\|(?:setinfo|setname|tracking)|cluster\|(?:nodes|shards|slots)|del|echo|eval|evalsha|` +
	`exists|get|getrange|hello|info|pexpire|ping|pttl|publish|readonly|role|scan|script\|load|select|sentinel(?:\|[a-z-]{1,30})?|set|strlen|subscribe|time|` +
	`unlink|wait))' command`)

func describeAnswer(code, words string) string {
	text := "redis answered " + code
	if found := unpermitted.FindStringSubmatch(words); code == "NOPERM" && found != nil {
		text += " to " + strings.ToUpper(found[1])
	}
	if why := advice(code); why != "" {
		return text + ": " + why
	}
	for _, e := range explained {
		if strings.HasPrefix(words, e.words) {
			return text + " " + e.words + ": " + e.advice
		}
	}
	return text
}

// A closeReason is the error that a server sent in place of an answer before it closed the connection: too many clients, for
// example.
type closeReason struct {
	line string
	err  error
}

func (f *closeReason) Error() string { return "the server said: " + f.line }
func (f *closeReason) Unwrap() error { return f.err }

// errOtherProtocol means that the other end does not speak the protocol of Redis.
var errOtherProtocol = errors.New("no reply of redis")

// errNoHandshake is an error of the TLS handshake.
type errNoHandshake struct{ err error }

func (e *errNoHandshake) Error() string { return "the TLS handshake: " + e.err.Error() }
func (e *errNoHandshake) Unwrap() error { return e.err }

const (
	connecting     = "redis cannot be reached: "
	noAgreement    = "redis and this process cannot agree on TLS: TLS 1.2 or later is needed"
	unknownFailure = "the connection to redis failed"
)

// describeFailure says why there is no connection.
func describeFailure(err error) string {
	var (
		cert      *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		name      *net.DNSError
		operation *net.OpError
		handshake *errNoHandshake
		primary   *errPrimary
		hook      *hookFailure
	)
	switch {
	case errors.As(err, &primary):
		return primary.describe()
	case errors.As(err, &hook) && hook.opaque:
		return hook.describe()
	case errors.Is(err, ErrUnavailable):
		return ErrUnavailable.Error()
	case errors.Is(err, ErrSlow):
		return ErrSlow.Error()
	case errors.As(err, &cert):
		return "the certificate of redis was refused: " + describeCertificate(cert.Err)
	case errors.As(err, &record):
		return "redis speaks no TLS at this port: check the port, or connect without TLS (redis://)"
	case isAlert(err) && errors.As(err, &operation):
		// The alert's text is one of a fixed list, see RFC 8446, section 6.
		return "redis refused the TLS handshake: " + strings.TrimPrefix(operation.Err.Error(), "tls: ") + describeAlert(operation.Err.Error())
	case errors.As(err, &handshake) && IsTimeout(err):
		return "redis did not answer the TLS handshake in time: check that its port speaks TLS"
	case errors.As(err, &handshake) && isClosed(err):
		return "redis closed the connection in the TLS handshake: check that its port speaks TLS, and whether it takes more connections (maxclients)"
	case errors.As(err, &handshake):
		return noAgreement
	case errors.As(err, &name) && name.IsNotFound:
		return connecting + "DNS knows no such host name"
	case errors.As(err, &name):
		return connecting + "DNS gave no answer for its host name"
	case errors.Is(err, syscall.ECONNREFUSED):
		return connecting + "nothing listens at its address (connection refused)"
	case errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH):
		return connecting + "there is no way to its address"
	case errors.Is(err, fs.ErrNotExist):
		return connecting + "there is no such socket file"
	case errors.Is(err, fs.ErrPermission):
		return connecting + "this process may not use its socket file or its address"
	case errors.Is(err, syscall.EINVAL):
		return connecting + "its address is not a valid one: the path of a socket has at most 107 bytes, and some IPv6 addresses need a zone"
	case errors.Is(err, errNoNode):
		return "some slots of the cluster have no node, or this node knows of none"
	case errors.Is(err, errOtherProtocol):
		return "what answers at the address does not speak the protocol of redis: check host and port, and whether it wants TLS"
	case IsTimeout(err):
		return "redis did not answer in time"
	case errors.Is(err, errReplaced):
		return "the Sentinels have named another primary"
	case errors.Is(err, errBroken):
		return "the connection to redis has broken"
	case isClosed(err):
		return "the connection was closed before redis had answered: it may want TLS (rediss://), be a proxy that does not know HELLO, or take no more connections"
	case hook != nil:
		return hook.describe()
	}
	return unknownFailure
}

func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// isAlert reports whether the other end has refused a TLS handshake, or ended it afterwards: in TLS 1.3 it checks certificates
// after its own part is over.
func isAlert(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error"
}

// describeAlert says what to do about an alert.
func describeAlert(text string) string {
	switch {
	case strings.Contains(text, "certificate required"), strings.Contains(text, "bad certificate"), strings.Contains(text, "unknown certificate authority"):
		return " (it wants a certificate of this process that it trusts: TLSConfig.Certificates)"
	case strings.Contains(text, "protocol version"):
		return " (TLS 1.2 or later is needed)"
	case strings.Contains(text, "unrecognized name"):
		return " (check TLSConfig.ServerName)"
	}
	return ""
}

// describeCertificate says what is wrong with a certificate, but not whose it is: a health check shows it to everybody who asks.
func describeCertificate(err error) string {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, new(x509.HostnameError)):
		return "it is for another host"
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "it is signed by an authority that is not trusted"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "it has expired, or is not valid yet"
	}
	return "it is not valid"
}
