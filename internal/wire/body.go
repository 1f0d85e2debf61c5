package wire

import (
	"io"
	"net/http"
	"runtime/debug"
)

// ReadBody reads and closes a response's body, at most limit bytes of it, counted after net/http has decompressed it.
// truncated tells that there was more, or that it broke off, which err explains.
func ReadBody(resp *http.Response, limit int64) (body []byte, truncated bool, err error) {
	defer func() {
		if r := recover(); r != nil { // of a RoundTripper's own body; what was read of it counts
			truncated, err = true, &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	defer resp.Body.Close()
	if resp.Body == http.NoBody {
		return nil, false, nil
	}
	body = make([]byte, 0, sizeHint(resp.ContentLength, limit))
	for {
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
		n, err := resp.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if int64(len(body)) > limit {
			return body[:limit], true, nil
		}
		if err == io.EOF {
			return body, false, nil
		}
		if err != nil {
			return body, true, err
		}
	}
}

// sizeHint is the capacity to begin with: with the promised length and one byte more, a body of that length and its
// end are read without growing. The promise is trusted up to 64 KiB.
func sizeHint(contentLength, limit int64) int64 {
	if contentLength <= 0 { // 0 also stands in responses a RoundTripper made itself
		return 512
	}
	return min(contentLength, limit, 64<<10) + 1
}
