use serialport::SerialPortType;

use super::SetupError;

/// A serial port of this computer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// What to open, for example `/dev/ttyACM0`.
    pub path: String,
    /// What is plugged in, as far as it says: maker, product, serial number.
    pub description: String,
    /// Vendor and product number, of what is at USB.
    pub usb: Option<(u16, u16)>,
}

/// All serial ports, those at USB first: an arm is one of them.
///
/// # Errors
/// [`SetupError::Ports`] with what the system says.
pub fn find_ports() -> Result<Vec<PortInfo>, SetupError> {
    // Where Linux has no such folder (a container may not), the crate panics.
    if cfg!(target_os = "linux") && !std::path::Path::new("/sys/class/tty").is_dir() {
        return Err(SetupError::Ports("there is no /sys/class/tty on this system".into()));
    }
    let ports = serialport::available_ports().map_err(|error| SetupError::Ports(error.to_string()))?;
    let mut found: Vec<PortInfo> = ports
        .into_iter()
        .map(|port| {
            let (description, usb) = describe(&port.port_type);
            PortInfo { path: port.port_name, description, usb }
        })
        .collect();
    found.sort_by(|a, b| (a.usb.is_none(), &a.path).cmp(&(b.usb.is_none(), &b.path)));
    Ok(found)
}

fn describe(port: &SerialPortType) -> (String, Option<(u16, u16)>) {
    match port {
        SerialPortType::UsbPort(usb) => {
            let serial = usb.serial_number.as_ref().map(|serial| format!("serial number {serial}"));
            let parts = [usb.manufacturer.clone(), usb.product.clone(), serial];
            let known: Vec<String> = parts.into_iter().flatten().collect();
            (format!("USB {:04x}:{:04x} {}", usb.vid, usb.pid, known.join(" ")), Some((usb.vid, usb.pid)))
        }
        SerialPortType::BluetoothPort => ("Bluetooth".into(), None),
        SerialPortType::PciPort => ("built in".into(), None),
        SerialPortType::Unknown => ("unknown".into(), None),
    }
}

/// Which port the arm is at: the one that was there before its cable was pulled, and is not any more.
///
/// # Errors
/// [`SetupError::Unplugged`] if none or several have gone.
pub fn unplugged(before: &[PortInfo], after: &[PortInfo]) -> Result<PortInfo, SetupError> {
    let gone: Vec<&PortInfo> =
        before.iter().filter(|port| after.iter().all(|other| other.path != port.path)).collect();
    match gone[..] {
        [port] => Ok(port.clone()),
        [] => Err(SetupError::Unplugged(
            "all ports are still there: pull the USB cable of the arm, not its power supply".into(),
        )),
        _ => {
            let paths: Vec<&str> = gone.iter().map(|port| port.path.as_str()).collect();
            Err(SetupError::Unplugged(format!("{} have gone: pull one cable only", paths.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(path: &str) -> PortInfo {
        PortInfo { path: path.into(), description: String::new(), usb: None }
    }

    #[test]
    fn the_port_that_has_gone_is_the_arms() {
        let before = [port("/dev/ttyACM0"), port("/dev/ttyACM1"), port("/dev/ttyS0")];
        assert_eq!(unplugged(&before, &[port("/dev/ttyACM0"), port("/dev/ttyS0")]), Ok(port("/dev/ttyACM1")));
        let none = unplugged(&before, &before).unwrap_err().to_string();
        assert!(none.contains("USB cable"), "{none}");
        let two = unplugged(&before, &before[2..]).unwrap_err().to_string();
        assert!(two.contains("/dev/ttyACM0, /dev/ttyACM1"), "{two}");
    }

    #[test]
    fn usb_ports_are_described() {
        let usb = serialport::UsbPortInfo {
            vid: 0x1a86,
            pid: 0x55d3,
            serial_number: Some("5A68".into()),
            manufacturer: None,
            product: Some("USB Single Serial".into()),
        };
        let expected = ("USB 1a86:55d3 USB Single Serial serial number 5A68".into(), Some((0x1a86, 0x55d3)));
        assert_eq!(describe(&SerialPortType::UsbPort(usb)), expected);
    }
}
