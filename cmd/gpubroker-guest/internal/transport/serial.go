package transport

import "fmt"

func openSerial(path string) (Transport, error) {
	return nil, &OpError{"open", "serial", fmt.Errorf("%w: %q", ErrUnavailable, path)}
}
