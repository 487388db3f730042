package bundle

import (
	"bytes"
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
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"ambientlab/internal/problem"
)

const (
	firstWait = time.Second
	maxWait   = 30 * time.Second
	// maxRetryAfter is the longest wait that a registry can ask for. Docker Hub asks for hours when its pull limit is
	// reached.
	maxRetryAfter = 2 * time.Minute
	// maxAttempts is for one request, and for a blob of which nothing more comes.
	maxAttempts = 6
)

// retrying is a transport that repeats a request after a transient failure. remote's own retries do not honour
// Retry-After and do not end with the context. The limit of a registry that it does not wait for is the problem
// RegistryLimited.
type retrying struct{ inner http.RoundTripper }

// RoundTrip returns the first answer that is not a transient failure, or the last one.
func (r retrying) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	for attempt := 1; ; attempt++ {
		answer, err := r.inner.RoundTrip(request)
		manifest := request.Method == http.MethodGet && strings.Contains(original(request).URL.Path, "/manifests/")
		if err == nil && manifest && answer.StatusCode == http.StatusOK {
			answer, err = buffered(answer)
		}
		why, wait := transient(ctx, answer, err)
		if why == "" || attempt == maxAttempts || wait > maxRetryAfter || !rewind(request) {
			if err == nil && answer.StatusCode == http.StatusTooManyRequests {
				return nil, limited(answer, wait)
			}
			return answer, err
		}
		if answer != nil {
			// The connection can be used again if little is left to read.
			_, copyErr := io.CopyN(io.Discard, answer.Body, 64<<10)
			_ = errors.Join(copyErr, answer.Body.Close())
		}
		wait = max(wait, backoff(attempt))
		notify(ctx, fmt.Sprintf("%s; trying again in %s", why, wait.Round(100*time.Millisecond)))
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// original is the request that was redirected to this one, or the request itself.
func original(request *http.Request) *http.Request {
	for request.Response != nil && request.Response.Request != nil {
		request = request.Response.Request
	}
	return request
}

// buffered reads a manifest into memory: a connection that is cut while it is read is then a failure of the request.
func buffered(answer *http.Response) (*http.Response, error) {
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	if len(raw) > maxDocument {
		return nil, problem.New(problem.ImageUnknown, nil, "%s serves a manifest of more than %d bytes",
			answer.Request.URL.Host, maxDocument)
	}
	answer.Body = io.NopCloser(bytes.NewReader(raw))
	return answer, nil
}

// limited is the problem that a registry limits requests.
func limited(answer *http.Response, wait time.Duration) error {
	host := answer.Request.URL.Host
	cause := transport.CheckError(answer, http.StatusOK)
	p := problem.New(problem.RegistryLimited, errors.Join(cause, answer.Body.Close()), "%s limits requests", host)
	if wait > 0 {
		p = p.With(fmt.Sprintf("The registry asks to wait %s.", wait.Round(time.Second)))
	}
	return p
}

// rewind prepares a request to be sent again.
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

// transient says why a request should be sent again, and how long to wait at least. An empty reason means that it
// should not.
func transient(ctx context.Context, answer *http.Response, err error) (why string, wait time.Duration) {
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
			retryAfter(answer.Header.Get("Retry-After"), time.Now())
	}
	return "", 0
}

// transientError tells a failure that can pass, such as a cut connection, from one that stays: an untrusted
// certificate, an unknown host, HTTP in place of HTTPS.
func transientError(err error) bool {
	var (
		certificate *tls.CertificateVerificationError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		record      tls.RecordHeaderError
		dns         *net.DNSError
		known       *problem.Problem
	)
	switch {
	case errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &hostname), errors.As(err, &record),
		errors.As(err, &known):
		return false
	case errors.Is(err, http.ErrSchemeMismatch):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	}
	return true
}

// retryAfter reads the value of a Retry-After header: seconds or a date (RFC 9110, section 10.2.3).
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// backoff is the wait after an attempt. It doubles with every attempt, and up to half of it is added at random, so that
// many clients do not come back at the same moment.
func backoff(attempt int) time.Duration {
	wait := min(maxWait, firstWait<<(min(attempt, 10)-1))
	return wait + rand.N(wait/2)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// notifyKey is the key of the function in a context that gets messages about waiting.
type notifyKey struct{}

func notify(ctx context.Context, message string) {
	if tell, ok := ctx.Value(notifyKey{}).(func(string)); ok {
		tell(message)
	}
}
