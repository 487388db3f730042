package identity

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
	caapi "istio.io/api/security/v1alpha1"
)

// CA signs workload certificates through istiod's certificate service. The proxy authenticates as itself and names the
// workload; istiod permits that for pods of the proxy's own node only (istiod's CA_TRUSTED_NODE_ACCOUNTS).
type CA struct {
	client    caapi.IstioCertificateServiceClient
	clusterID string
	ttl       time.Duration
}

// NewCA returns a client of the CA at conn, which must send the proxy's own credentials. ttl is the lifetime to
// request; the CA may grant less.
func NewCA(conn grpc.ClientConnInterface, clusterID string, ttl time.Duration) *CA {
	return &CA{client: caapi.NewIstioCertificateServiceClient(conn), clusterID: clusterID, ttl: ttl}
}

// Sign creates a new key for id and requests a certificate for it.
func (c *CA) Sign(ctx context.Context, id Identity) (*Certificate, error) {
	key, csr, err := newRequest(id)
	if err != nil {
		return nil, err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "clusterid", c.clusterID)
	resp, err := c.client.CreateCertificate(ctx, &caapi.IstioCertificateRequest{
		Csr:              csr,
		ValidityDuration: int64(c.ttl / time.Second),
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"ImpersonatedIdentity": structpb.NewStringValue(id.String()),
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("requesting a certificate for %s from the CA: %w", id, err)
	}
	return assemble(id, key, resp.GetCertChain())
}
