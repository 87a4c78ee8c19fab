//! `apply`, `rollback`, `detach`: what changes the kernel.

use govc_image::Image;
use govc_loader::{
    attach::HookChoice,
    instance::Place,
    keyring::KeyRing,
    publish::{self, Applied},
    status,
};

use super::plural;
use crate::{
    arguments::{Apply, Detach, Format, Hook, InstanceArguments},
    failure::Failure,
    input::{self, Analysis, Overlay},
    output::{Style, json, line},
};

/// The instance that the command line names.
pub fn place(arguments: &InstanceArguments) -> Place {
    Place::new(&arguments.bpffs, &arguments.instance)
}

pub fn apply(arguments: &Apply, style: &Style) -> Result<(), Failure> {
    let image = image(arguments, style)?;
    let place = place(&arguments.instance);
    if arguments.interfaces.is_empty() && !place.exists() {
        return Err(Failure::Usage {
            message: "no interface to enforce on".into(),
            help: "Name one: govc apply POLICY --iface eth0".into(),
        });
    }
    let applied = publish::apply(&publish::Apply {
        place: &place,
        image: &image,
        interfaces: &arguments.interfaces,
        hook: match arguments.hook {
            Hook::Auto => HookChoice::Auto,
            Hook::Xdp => HookChoice::Xdp,
            Hook::Tcx => HookChoice::Tcx,
        },
        keys: &KeyRing::new(&arguments.keys),
        set_mtu: !arguments.keep_mtu,
        dry_run: arguments.dry_run,
    })?;
    if arguments.instance.json {
        return json(&applied);
    }
    tell(&applied, arguments.dry_run, style)
}

fn image(arguments: &Apply, style: &Style) -> Result<Image, Failure> {
    match (arguments.image, arguments.sources.files.as_slice()) {
        (false, _) => {
            let json = arguments.instance.json && arguments.sources.format == Format::Graphical;
            let input =
                input::read(&arguments.sources, json, &Overlay::new(), Analysis::Assertions)?;
            input.finish(&arguments.sources, style)?;
            Ok(input.compiled.ok_or(Failure::Told)?.image)
        }
        (true, [path]) => super::inspect::read_image(path),
        (true, _) => Err(Failure::Usage {
            message: "--image takes one image".into(),
            help: "An image holds everything that it was built from.".into(),
        }),
    }
}

fn tell(applied: &Applied, dry_run: bool, style: &Style) -> Result<(), Failure> {
    let size =
        format!("{}, {} KiB", plural(applied.rules, "rule"), applied.image_len.div_ceil(1024));
    if dry_run {
        line(&format!("{} would apply: {size}", style.good("ok")))?;
    } else {
        line(&format!(
            "{} generation {} in force: {size}, swapped in {:.1} ms",
            style.good("ok"),
            applied.generation,
            applied.publish_us as f64 / 1000.0
        ))?;
    }
    for interface in &applied.interfaces {
        let zone = match &interface.zone {
            Some(zone) => format!("zone {zone}"),
            None => style.bad("in no zone of the policy: nothing leaves or arrives unless a rule asks for no zone"),
        };
        let hook = if interface.ingress.is_empty() {
            String::new()
        } else {
            format!(", {}", interface.ingress)
        };
        line(&format!(
            "   {}: {zone}{hook}, packets up to {} bytes",
            interface.name, interface.inner_mtu
        ))?;
    }
    Ok(())
}

pub fn rollback(arguments: &InstanceArguments, style: &Style) -> Result<(), Failure> {
    let generation = publish::rollback(&place(arguments))?;
    if arguments.json {
        return json(&serde_json::json!({ "generation": generation }));
    }
    line(&format!("{} generation {generation} in force again", style.good("ok")))
}

pub fn detach(arguments: &Detach, style: &Style) -> Result<(), Failure> {
    let detached = status::detach(&place(&arguments.instance), &arguments.interfaces)?;
    if arguments.instance.json {
        return json(&serde_json::json!({ "detached": detached }));
    }
    line(&format!("{} no longer enforcing on {}", style.good("ok"), detached.join(", ")))
}
