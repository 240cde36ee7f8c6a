declare HOME='mine'
declare NIX_ATTRS_SH_FILE='x'
declare NIX_BUILD_CORES=5
declare NIX_STORE='x'
declare PATH='/p'
declare _ok='1'
declare big=1
declare builder='/nix/store/97qykwzq0gvz7iz2wii8sii31rczss1l-tools/bin/sh'
declare -A e=()
declare -a el=()
declare fa=
declare fbig=-2147483648
declare fi=2
declare fm=-2147483648
declare fr=16777217
declare i=3
declare i2=16777217
declare i3=-2147483648
declare -a impureEnvVars=('FOO' )
declare -a l2=(1  '' 'a b' )
declare -a lf=(1 2 )
declare -A m2=(['k'\''']='v' )
declare -A m3=(['a']=1 ['b']= ['c']='' )
declare n=''
declare name='attributes'
declare neg=-7
declare -A outputs=(['out']='/nix/store/zassxrjsa94w446wwc9sykfnjwkx1qzb-attributes' )
declare -a passAsFile=('s' )
declare ph='/nix/store/zassxrjsa94w446wwc9sykfnjwkx1qzb-attributes'
declare s='a'\''b"c
'
declare system='x86_64-linux'
declare t=1
declare tab='	'
