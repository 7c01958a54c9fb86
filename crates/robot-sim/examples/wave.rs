//! The arm puts a cube into the tray, and a contact sheet of it goes to a PNG file.
//!
//! `cargo run --release -p skillweld-robot-sim --example wave -- wave.png`

use std::error::Error;

use skillweld_robot_sim::{
    ArmModel, GRIPPER, Image, JOINTS, Renderer, STEPS_PER_S, Scene, ToolTarget, Vec3, World, cubes_and_tray,
    vec3,
};

const COLUMNS: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "wave.png".into());
    let mut scene = Scene::tabletop(400, 300);
    scene.samples = 2;
    let mut world = World::new(ArmModel::so101(), scene, cubes_and_tray(4))?;
    let cube = world.index("red_cube")?;
    let tray = world.index("tray")?;
    let (from, yaw) = (world.bodies()[cube].pose().position, world.bodies()[cube].pose().yaw_rad());
    let to = world.bodies()[tray].pose().position;
    let arm = world.arm().clone();
    let open = arm.gripper.position_for(0.055, &arm.joints[GRIPPER]);
    let closed = arm.joints[GRIPPER].min_rad;
    let above = Vec3::Z * 0.055;
    let drop_yaw = world.bodies()[tray].pose().yaw_rad();
    let mut pictures = Vec::new();
    let mut renderer = Renderer::new();
    pictures.push(renderer.render(&world)?);
    for (target, grip, seconds) in [
        (arm.from_above(from + above, yaw, 0.025), open, 1.2),
        (arm.from_above(from, yaw, 0.025), open, 0.8),
        (arm.from_above(from, yaw, 0.025), closed, 0.8),
        (arm.from_above(from + above, yaw, 0.025), closed, 0.8),
        (arm.from_above(to + vec3(0.0, 0.0, 0.065), drop_yaw, 0.025), closed, 1.2),
        (arm.from_above(to + vec3(0.0, 0.0, 0.03), drop_yaw, 0.025), closed, 0.8),
        (arm.from_above(to + vec3(0.0, 0.0, 0.03), drop_yaw, 0.025), open, 0.8),
    ] {
        go(&mut world, &arm, &target, grip, seconds)?;
        pictures.push(renderer.render(&world)?);
    }
    let sheet = contact_sheet(&pictures);
    let file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    let mut encoder = png::Encoder::new(file, sheet.width as u32, sheet.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&sheet.rgb)?;
    Ok(())
}

/// Moves the tool to a target on a straight line through the joints.
fn go(
    world: &mut World,
    arm: &ArmModel,
    target: &ToolTarget,
    grip: f64,
    seconds: f64,
) -> Result<(), Box<dyn Error>> {
    let start = world.servos().goals;
    let mut end = arm.inverse(target, &start)?;
    end[GRIPPER] = grip;
    let steps = (seconds * f64::from(STEPS_PER_S)) as usize;
    for step in 0..steps {
        let share = (1.5 * step as f64 / steps as f64).min(1.0);
        let goals: [f64; JOINTS] = std::array::from_fn(|j| start[j] + share * (end[j] - start[j]));
        world.set_goals(&goals);
        world.step();
    }
    Ok(())
}

/// Front pictures in rows, each with the wrist picture of the same moment below it.
fn contact_sheet(pictures: &[Vec<Image>]) -> Image {
    let (width, height) = (pictures[0][0].width, pictures[0][0].height);
    let rows = pictures.len().div_ceil(COLUMNS) * 2;
    let mut sheet = Image { width: width * COLUMNS, height: height * rows, rgb: Vec::new() };
    sheet.rgb.resize(sheet.width * sheet.height * 3, 255);
    for (moment, cameras) in pictures.iter().enumerate() {
        for (camera, image) in cameras.iter().take(2).enumerate() {
            let (column, row) = (moment % COLUMNS, moment / COLUMNS * 2 + camera);
            for line in 0..height {
                let at = ((row * height + line) * sheet.width + column * width) * 3;
                let bytes = &image.rgb[line * width * 3..(line + 1) * width * 3];
                sheet.rgb[at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
    sheet
}
