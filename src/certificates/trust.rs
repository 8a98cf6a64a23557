//! How people make their machines trust a development CA, and where that cannot help. Text only.

use std::path::Path;

/// Commands for each system, with the path of the CA filled in.
pub(super) fn instructions(ca: &Path) -> String {
    let ca = ca.display();
    format!(
        "\
Trust the CA once on each machine that is to accept the certificate:
  Debian, Ubuntu   sudo cp {ca} /usr/local/share/ca-certificates/tidegate-dev.crt && sudo update-ca-certificates
  Fedora, RHEL     sudo cp {ca} /etc/pki/ca-trust/source/anchors/tidegate-dev.pem && sudo update-ca-trust
  macOS            sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {ca}
  Windows          certutil -addstore -f Root {ca}            (as administrator)
  Firefox          Settings > Certificates > Authorities > Import
  Chrome on Linux  certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n tidegate-dev -i {ca}
  Node.js          NODE_EXTRA_CA_CERTS={ca}
  curl             curl --cacert {ca} …
Or trust nothing and test with: curl --cacert {ca} https://localhost/

Where this does not help:
  Android apps     ignore CAs installed by the user (targetSdk 24 and later); a debug build has to allow them in its
                   network security configuration: <debug-overrides> <trust-anchors> <certificates src=\"user\"/>
  WeChat           mini programs accept public certificates for a registered domain only; during development tick
                   \"do not verify valid domain names\" in the tool, and use a real certificate on phones
  iOS              after installing the profile: Settings > General > About > Certificate Trust Settings

Keep ca.key to yourself: whoever has it can be any web site to the machines that trust this CA.
"
    )
}
