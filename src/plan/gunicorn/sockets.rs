//! Where Gunicorn listens, and the sockets that it inherits for that.

use super::super::bind::Addresses;
use super::super::guard::Around;
use super::super::{Descriptor, Inherited, Launch};
use super::{Own, worker_class};
use crate::settings::Resolution;
use crate::settings::value::Mode;

/// Whether the guard in the workers can tell when they are ready: the class is known to serve ASGI or WSGI apps.
pub(super) fn tell_readiness(around: &Around, class: Option<&str>, own: &Own, resolution: &Resolution) -> bool {
    around.is_possible(&resolution.settings)
        && class.is_some_and(|class| worker_class::serves_wsgi(class).is_some())
        && own.is_readable()
}

/// Where it listens, and the sockets that it inherits if we stay: the one for probes comes last.
pub(super) fn listen(resolution: &Resolution, addresses: &Addresses, is_probed: bool, launch: &mut Launch) {
    for bind in [&addresses.first].into_iter().chain(&addresses.further) {
        launch.args.extend(["--bind".into(), bind.to_string().into()]);
    }
    if resolution.settings.mode.value == Mode::Exec {
        return;
    }
    let further = (0..addresses.further.len()).map(Inherited::FurtherListener);
    let probe = is_probed.then_some(Inherited::ProbeListener);
    let what = [Inherited::Listener].into_iter().chain(further).chain(probe);
    launch.descriptors.extend((3..).zip(what).map(|(number, what)| Descriptor { number, what }));
    launch.listen_pid = true;
    launch.env.push(("LISTEN_FDS".into(), Some(launch.descriptors.len().to_string().into())));
}
