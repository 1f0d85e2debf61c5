package hermes

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"github.com/hermeshttp/hermes/internal/wire"
)

// FailureKind tells how an attempt failed, apart from its status.
type FailureKind string

// The kinds of failure. Of those marked "not sent" it is certain that the receiver did not get the request; of the
// others it may have acted on it.
const (
	// KindStatus: an answer that the policy does not take for a delivery.
	KindStatus FailureKind = "status"
	// KindRedirect: a redirect that was not followed, because it would change the message, leads nowhere, or drops
	// from https to http; or a 303 that did not lead to data.
	KindRedirect FailureKind = "redirect"
	// KindDNS: the host's name could not be resolved. Not sent.
	KindDNS FailureKind = "dns"
	// KindConnect: no connection: refused, unreachable, a proxy's refusal. Not sent.
	KindConnect FailureKind = "connect"
	// KindConnectTimeout: no connection in time. Not sent.
	KindConnectTimeout FailureKind = "connect_timeout"
	// KindTLS: no secure connection: handshake or certificate. Not sent.
	KindTLS FailureKind = "tls"
	// KindTimeout: no answer in time.
	KindTimeout FailureKind = "timeout"
	// KindConnection: the connection broke before an answer came.
	KindConnection FailureKind = "connection"
	// KindCanceled: the caller's context ended, or the client was shut down, before an answer came.
	KindCanceled FailureKind = "canceled"
	// KindSigner: the request signer failed or panicked. Not sent.
	KindSigner FailureKind = "signer"
	// KindPanic: the RoundTripper or the policy panicked.
	KindPanic FailureKind = "panic"
	// KindOther: a RoundTripper's error of no known kind.
	KindOther FailureKind = "other"
	// KindPoison: the row was claimed more than 10 times without any outcome being recorded: it may be what ends the
	// processes that send it.
	KindPoison FailureKind = "poison"
)

// NotSent tells whether a failure of this kind is certain not to have reached the receiver.
func (k FailureKind) NotSent() bool {
	switch k {
	case KindDNS, KindConnect, KindConnectTimeout, KindTLS, KindSigner:
		return true
	}
	return false
}

// kindOf classifies err, with which an attempt ended that was not canceled. Only types and the trace count, no text.
func kindOf(err error, trace *wire.Trace) FailureKind {
	var (
		redirect *wire.RedirectError
		signer   *wire.SignError
		panicked *wire.PanicError
		dns      *net.DNSError
		network  *net.OpError
	)
	switch {
	case errors.As(err, &redirect):
		return KindRedirect
	case errors.As(err, &signer):
		return KindSigner
	case errors.As(err, &panicked):
		return KindPanic
	case errors.As(err, &dns):
		return KindDNS
	case isTLS(err):
		return KindTLS
	case isTimeout(err) && trace.NotSent():
		return KindConnectTimeout
	case isTimeout(err):
		return KindTimeout
	case trace.NotSent() && errors.As(err, &network) && (network.Op == "remote error" || network.Op == "local error"):
		return KindTLS // crypto/tls has these for the alerts that either side sends
	case trace.NotSent(), errors.As(err, &network) && network.Op == "dial":
		return KindConnect
	case trace.Sent():
		return KindConnection
	}
	return KindOther
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

func isTLS(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		record       tls.RecordHeaderError
		alert        tls.AlertError
	)
	return errors.As(err, &verification) || errors.As(err, &record) || errors.As(err, &alert)
}
