//! The image of a container: its name, and that it is there.

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use hyper::header::HeaderValue;

use super::{Came, login, said};

/// What registries and engines say of an image that will not be there the next time either, or is not for this user.
const REFUSALS: &[&str] = &[
    "manifest unknown",
    "name unknown",
    "not found",
    "no image found",
    "no matching manifest",
    "denied",
    "unauthorized",
    "authentication required",
    "no basic auth credentials",
    "invalid reference",
    "normalizing name",
];
/// What may sound so, and is trouble of the agent's machine.
const TROUBLES: &[&str] = &["permission denied", "executable file not found"];
/// What they say where a login may help.
const WANTS_LOGIN: &[&str] = &["denied", "unauthorized", "authentication required", "no basic auth credentials"];

/// An image's name with a tag: without one an engine would fetch all there are.
pub fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

/// Sees to it that the engine has an image.
///
/// # Errors
/// With what the engine or the registry says.
pub async fn have(docker: &Docker, image: &str) -> Result<(), Came> {
    match docker.inspect_image(image).await {
        Ok(_) => Ok(()),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => pull(docker, image).await,
        Err(error) => Err(told(&format!("the image {image} cannot be looked for: {}", said(&error)), &error)),
    }
}

async fn pull(docker: &Docker, image: &str) -> Result<(), Came> {
    println!("pulling {image}");
    let (login, of, is_unread) = match login::find(image, &login::files()).await {
        Ok(Some(login)) => (Some(login.credentials), format!("under the login of {}", login.from.display()), false),
        Ok(None) => {
            let none = "the agent's user has no login there; `docker login` or `podman login` make one";
            (None, none.to_owned(), false)
        }
        Err(why) => {
            println!("{why}");
            (None, why, true)
        }
    };
    // Engines read it in the alphabet for URLs, and take one that they cannot read for none.
    let docker = docker.clone().with_request_modifier(|mut request| {
        if let Some(header) = request.headers_mut().get_mut("X-Registry-Auth") {
            let text = header.to_str().unwrap_or_default().replace('+', "-").replace('/', "_");
            if let Ok(mut value) = HeaderValue::try_from(text) {
                value.set_sensitive(true);
                *header = value;
            }
        }
        request
    });
    let options = CreateImageOptionsBuilder::new().from_image(image).build();
    let mut pulling = docker.create_image(Some(options), None, login);
    while let Some(news) = pulling.next().await {
        news.map_err(|error| {
            let words = said(&error);
            let what = format!("the image {image} cannot be had: {words}");
            match wants_login(&words) {
                // That is the agent's own trouble.
                true if is_unread => Came::Failed(format!("{what} ({of})")),
                true => told(&format!("{what} (registry {}: {of})", login::registry(image)), &error),
                false => told(&what, &error),
            }
        })?;
    }
    Ok(())
}

fn says(words: &str, any: &[&str]) -> bool {
    any.iter().any(|part| words.contains(part))
}

fn wants_login(words: &str) -> bool {
    says(words, WANTS_LOGIN) && !says(words, TROUBLES)
}

/// What that means for a build. Podman has one code for everything, and says some of it when all went well so far.
fn told(words: &str, error: &Error) -> Came {
    let is_refused = match error {
        Error::DockerResponseServerError { status_code: 400 | 404 | 409, .. } => true,
        Error::DockerResponseServerError { message: said, .. } | Error::DockerStreamError { error: said } => {
            says(said, REFUSALS) && !says(said, TROUBLES)
        }
        _ => false,
    };
    if is_refused { Came::Refused(words.to_owned()) } else { Came::Failed(words.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::{Came, Error, tagged, told, wants_login};

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, whole) in [
            ("debian", "debian:latest"),
            ("debian:bookworm", "debian:bookworm"),
            ("registry:5000/debian", "registry:5000/debian:latest"),
            ("debian@sha256:00", "debian@sha256:00"),
        ] {
            assert_eq!(tagged(image), whole);
        }
    }

    #[test]
    fn a_registry_that_is_away_is_not_one_that_refuses() {
        // As Docker 20.10 and Podman 4.3 say it, and registries through them.
        for (words, is_refused, is_login) in [
            ("reading manifest one in lab/busy: manifest unknown: manifest unknown", true, false),
            ("reading manifest one in lab/busy: unauthorized: authentication required", true, true),
            ("Head \"http://lab/v2/busy/manifests/one\": no basic auth credentials", true, true),
            ("pull access denied for busy: denied: requested access to the resource is denied", true, true),
            ("no image found in manifest list for architecture amd64, variant \"\", OS linux", true, false),
            ("normalizing image: normalizing name for compat API: repository name must be lowercase", true, false),
            ("Get \"http://lab/v2/\": dial tcp 127.0.0.1:5000: connect: connection refused", false, false),
            ("pinging container registry lab: dial tcp: lookup lab on 127.0.0.53:53: no such host", false, false),
            ("Get \"https://lab/v2/\": x509: certificate signed by unknown authority", false, false),
            ("toomanyrequests: You have reached your pull rate limit", false, false),
            ("exec: \"docker-credential-x\": executable file not found in $PATH", false, false),
            ("open /var/lib/containers/storage/tmp: permission denied", false, false),
            ("writing blob: no space left on device", false, false),
        ] {
            for error in [
                Error::DockerStreamError { error: words.to_owned() },
                Error::DockerResponseServerError { status_code: 500, message: words.to_owned() },
            ] {
                assert_eq!(matches!(told(words, &error), Came::Refused(_)), is_refused, "{words}");
            }
            assert_eq!(wants_login(words), is_login, "{words}");
        }
        let missing = Error::DockerResponseServerError { status_code: 404, message: "so".to_owned() };
        assert!(matches!(told("so", &missing), Came::Refused(_)));
    }
}
