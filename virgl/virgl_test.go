package virgl

import "testing"

func TestNewClose(t *testing.T) {
	for range 3 {
		onThread(t, nil, func(r *renderer) {
			t.Logf("%+v", r.Info())
		})
	}
}
