// Package virpipe runs programs of the lab root with Mesa's virpipe driver, which sends
// their OpenGL to gpubroker or to virglrenderer's own virgl_test_server.
package virpipe
