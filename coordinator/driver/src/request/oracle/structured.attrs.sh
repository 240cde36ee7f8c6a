declare builder='/nix/store/97qykwzq0gvz7iz2wii8sii31rczss1l-tools/bin/sh'
declare name='structured'
declare -A outputs=(['out']='/nix/store/c55rfzjpamq72h9bb27n7c4p252lisvr-structured' )
declare system='x86_64-linux'
