//! Camera sources behind [`skillweld_robot::Camera`]: a moving pattern, a folder of images, MJPEG over HTTP, and with the
//! feature `v4l2` cameras of this machine. [`CameraSpec::parse`] makes any of them from a text such as
//! `front=http://pi:8080/stream:640x480`.
//!
//! Whatever waits or decodes does so on threads of the camera's own; [`Camera::latest`](skillweld_robot::Camera::latest) hands
//! out the newest frame, in the stream's size, and refuses one that is older than half a second or three periods of the
//! camera's rate. A rate below 3 a second is refused: the control loop acts on no image that is older than a second.
//!
//! V4L2 comes through the crate `linuxvideo`: its declarations of the kernel's structs are written out, while those of the
//! better known `v4l` are generated at build time and want libclang for it; a layer of our own would be `unsafe` code that
//! no test reaches without a camera.

mod decode;
mod delay;
mod directory;
mod live;
mod mjpeg;
mod multipart;
mod pattern;
mod resize;
mod spec;
#[cfg(all(target_os = "linux", feature = "v4l2"))]
mod v4l2;
#[cfg(any(test, all(target_os = "linux", feature = "v4l2")))]
mod yuyv;

pub use spec::{CameraSpec, Source, parse_size};
