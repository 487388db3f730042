package bundle

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
)

// How transient failures of a registry are met.
const (
	firstWait = time.Second
	maxWait   = 30 * time.Second
	// maxRetryAfter is the longest wait that a registry may ask for. One that asks for
	// more, as Docker Hub's pull limit of six hours does, has refused.
	maxRetryAfter = 2 * time.Minute
	// maxAttempts is for a request, or for a blob without any progress.
	maxAttempts = 6
)

// retrying is a transport that tries a request again when its failure is transient.
type retrying struct {
	inner http.RoundTripper
	clock Clock
}

// RoundTrip gives the first answer that is not a transient failure, or the last one.
func (r retrying) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	for attempt := 1; ; attempt++ {
		answer, err := r.inner.RoundTrip(request)
		why, wait := transient(ctx, answer, err, r.clock.Now())
		if why == "" || attempt == maxAttempts || wait > maxRetryAfter || !rewind(request) {
			return answer, err
		}
		if answer != nil {
			// Reading a little of what is left lets the connection be used again.
			_, copyErr := io.CopyN(io.Discard, answer.Body, 64<<10)
			closeErr := answer.Body.Close()
			_ = errors.Join(copyErr, closeErr) // the answer is thrown away whatever became of it
		}
		wait = max(wait, backoff(attempt))
		notice(ctx, fmt.Sprintf("%s; trying again in %s", why, wait.Round(100*time.Millisecond)))
		if err := r.clock.Sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// rewind makes a request ready to be sent again.
func rewind(request *http.Request) bool {
	if request.Body == nil || request.Body == http.NoBody {
		return true
	}
	if request.GetBody == nil {
		return false
	}
	body, err := request.GetBody()
	request.Body = body
	return err == nil
}

// transient says why an outcome is worth another try, and how long to wait at least;
// an empty reason means that it is not.
func transient(ctx context.Context, answer *http.Response, err error, now time.Time) (why string, wait time.Duration) {
	if ctx.Err() != nil {
		return "", 0
	}
	if err != nil {
		if !transientError(err) {
			return "", 0
		}
		return err.Error(), 0
	}
	switch answer.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fmt.Sprintf("%s answered %s", answer.Request.URL.Host, answer.Status),
			retryAfter(answer.Header.Get("Retry-After"), now)
	}
	return "", 0
}

// transientError tells a failure that may pass, such as a cut connection, from one that
// will not: a wrong certificate, an unknown host, plain HTTP where TLS is spoken.
func transientError(err error) bool {
	var (
		certificate *tls.CertificateVerificationError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		record      tls.RecordHeaderError
		dns         *net.DNSError
	)
	switch {
	case errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &hostname), errors.As(err, &record):
		return false
	case errors.Is(err, http.ErrSchemeMismatch):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	}
	return true
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110, 10.2.3).
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// backoff is the wait after an attempt: twice that after the one before, and up to half
// as much again, so that many clients do not come back at the same moment.
func backoff(attempt int) time.Duration {
	wait := min(maxWait, firstWait<<(min(attempt, 10)-1))
	return wait + rand.N(wait/2)
}

// noticeKey is the key under which a context has the function that is told of waits.
type noticeKey struct{}

func withNotice(ctx context.Context, tell func(string)) context.Context {
	return context.WithValue(ctx, noticeKey{}, tell)
}

func notice(ctx context.Context, message string) {
	if tell, ok := ctx.Value(noticeKey{}).(func(string)); ok {
		tell(message)
	}
}
