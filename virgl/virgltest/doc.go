// Package virgltest has a renderer in pure Go for tests of what sits above
// [virgl.Renderer]: no library, no GL, every call recorded and checked.
//
// It keeps contexts, resources, backing and attachments like libvirglrenderer,
// holds the pixels of 32-bit textures so that transfers, ReadPixels and Export
// give real bytes, signals fences through a real poll descriptor (by itself or
// when the test says), fails where it is told to ([Fake.Fail]) and reports misuse
// ([Fake.Misuse]) instead of panicking. It runs no command streams; a test that
// wants them to draw sets Config.OnSubmit and paints with [Fake.Paint].
package virgltest
