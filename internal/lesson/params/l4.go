package params

// L4 is a policy that refuses appa's connections to appb's pods.
type L4 struct {
	// HTTP makes it a policy with an HTTP term, which reads as if it allowed appa's GET. ztunnel, which enforces it,
	// sees no requests.
	HTTP bool `json:"http"`
}
