//! What all suites see alike: where the front camera stands.

use skillweld_robot_sim::{Background, Camera, Light, Mount, Scene, Surface, vec3};

/// A scene seen from in front of the arm and above, so that everything in reach is in the picture and 36 mm are at least
/// eight of 96 pixels. The camera on the wrist belongs to the arm: [`crate::embodiment`].
pub(crate) fn scene(size: usize, surface: Surface, light: Light, background: Background) -> Scene {
    let mut scene = Scene::tabletop(size, size);
    scene.cameras.truncate(1);
    scene.cameras[0] = Camera {
        name: "front".into(),
        mount: Mount::World,
        eye: vec3(0.565, 0.0, 0.400),
        target: vec3(0.165, 0.0, 0.030),
        up: vec3(0.0, 0.0, 1.0),
        fov_y_rad: 0.75,
        width: size,
        height: size,
    };
    scene.table.surface = surface;
    scene.light = light;
    scene.background = background;
    scene
}
